//! How many requests a server gets at a time, and how many wait.

use crate::AdapterError;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A bounded queue before a bounded number of places; first come, first served.
pub struct Gate {
    places: Semaphore,
    concurrency_max: usize,
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// Counts somebody who waits, as long as they do.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub fn new(concurrency_max: usize, waiting_max: usize) -> Self {
        let concurrency_max = concurrency_max.min(Semaphore::MAX_PERMITS);
        Self { places: Semaphore::new(concurrency_max), concurrency_max, waiting: AtomicUsize::new(0), waiting_max }
    }

    pub fn concurrency_max(&self) -> usize {
        self.concurrency_max
    }

    /// How many are inside, and how many wait.
    pub fn count(&self) -> (usize, usize) {
        (self.concurrency_max - self.places.available_permits(), self.waiting.load(Ordering::Relaxed))
    }

    /// Whether somebody who comes now would be let in, at once or later.
    ///
    /// # Errors
    /// [`AdapterError::Busy`].
    pub fn has_room(&self) -> Result<(), AdapterError> {
        let full = self.places.available_permits() == 0 && self.waiting.load(Ordering::Relaxed) >= self.waiting_max;
        if full { Err(self.busy()) } else { Ok(()) }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// [`AdapterError::Busy`] if too many wait already.
    pub async fn enter(&self) -> Result<SemaphorePermit<'_>, AdapterError> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        if before >= self.waiting_max {
            return Err(self.busy());
        }
        self.places.acquire().await.map_err(|_| self.busy())
    }

    fn busy(&self) -> AdapterError {
        let (running, waiting) = (self.concurrency_max, self.waiting_max);
        AdapterError::Busy(format!("{running} requests run and {waiting} wait: ask again later"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn so_many_are_inside_so_many_wait_and_the_next_is_turned_away() {
        let gate = Gate::new(1, 1);
        let inside = gate.enter().now_or_never().unwrap().unwrap();
        let mut waits = Box::pin(gate.enter());
        assert!(waits.as_mut().now_or_never().is_none());
        assert_eq!(gate.count(), (1, 1));
        assert!(matches!(gate.has_room(), Err(AdapterError::Busy(_))));
        assert!(matches!(gate.enter().now_or_never(), Some(Err(AdapterError::Busy(_)))));
        assert_eq!(gate.count(), (1, 1), "who was turned away does not wait");
        drop(inside);
        let inside = waits.now_or_never().unwrap().unwrap();
        assert_eq!((gate.count(), gate.has_room()), ((1, 0), Ok(())));
        // Who stops waiting leaves no trace.
        drop(Box::pin(gate.enter()).as_mut().now_or_never());
        assert_eq!(gate.count(), (1, 0));
        drop(inside);
        assert_eq!(gate.count(), (0, 0));
    }
}
