//! How work is carried out; never what it gives.

use crate::{level::Level, pool::Pool};
use std::{fmt, sync::Arc};

/// Products below which splitting costs more than it gains.
const SPLIT_PRODUCTS_MIN: usize = 1 << 17;

/// The instructions and threads that a computation uses. A copy shares the pool.
#[derive(Clone)]
pub struct Plan {
    /// A level that the machine lacks is carried out as [`Level::Scalar`].
    pub level: Level,
    pub pool: Arc<Pool>,
    /// Products from which work is split among threads.
    pub split_products_min: usize,
}

impl Plan {
    /// The fastest instructions of this machine on `threads` threads.
    pub fn new(threads: usize) -> Self {
        Self::at(Level::best(), threads)
    }

    /// A given level on `threads` threads.
    pub fn at(level: Level, threads: usize) -> Self {
        Self { level, pool: Arc::new(Pool::new(threads)), split_products_min: SPLIT_PRODUCTS_MIN }
    }

    /// The same, but even the smallest work is split: for tests.
    pub fn splitting_all(self) -> Self {
        Self { split_products_min: 0, ..self }
    }

    /// Runs `tasks` tasks of `products` products together, here alone if they are few.
    pub(crate) fn run(&self, tasks: usize, products: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if products < self.split_products_min {
            for index in 0..tasks {
                task(0, index);
            }
        } else {
            self.pool.run(tasks, task);
        }
    }

    /// Runs `task(index, part)` for each part of `chunk` elements, the last one shorter.
    pub(crate) fn run_chunks(
        &self,
        values: &mut [f32],
        chunk: usize,
        products: usize,
        task: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) {
        let length = values.len();
        let values = Shared::of(values);
        self.run(length.div_ceil(chunk), products, &|_, index| {
            let at = index * chunk;
            // SAFETY: parts lie within `values`, which is borrowed mutably here, and do not overlap;
            // each is taken by one task.
            task(index, unsafe { values.part(at, chunk.min(length - at)) });
        });
    }
}

/// Memory that several tasks write to, each in places of its own.
pub(crate) struct Shared<T>(*mut T);

// SAFETY: whoever takes a part says why no two tasks have the same.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn of(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// Where element `at` is.
    ///
    /// # Safety
    /// There is such an element, or it is one past the last.
    pub unsafe fn at(&self, at: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(at) }
    }

    /// `length` elements from `at` on.
    ///
    /// # Safety
    /// The memory is still borrowed, has these elements, and nobody else uses them meanwhile.
    #[allow(clippy::mut_from_ref)] // the caller's promise
    pub unsafe fn part(&self, at: usize, length: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), length) }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} on {} threads", self.level, self.pool.threads())
    }
}
