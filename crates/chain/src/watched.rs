//! A value that tasks wait for.
//!
//! Like a watch channel, but those who wait are woken in the order in which they came. The usual
//! implementation wakes them in random order, which makes simulations differ from run to run.

use parking_lot::Mutex;
use std::pin::pin;
use tokio::sync::Notify;

/// See the module.
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Clone> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    pub(crate) fn get(&self) -> T {
        self.value.lock().clone()
    }

    /// Changes the value and wakes all who wait.
    pub(crate) fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.value.lock());
        self.changed.notify_waiters();
    }

    pub(crate) fn set(&self, value: T) {
        self.update(|old| *old = value);
    }

    /// Waits until `found` finds something.
    pub(crate) async fn until<R>(&self, found: impl Fn(T) -> Option<R>) -> R {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Some(result) = found(self.get()) {
                return result;
            }
            changed.await;
        }
    }
}
