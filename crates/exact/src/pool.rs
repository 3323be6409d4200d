//! A persistent pool of threads for the many short parallel steps of a model: thousands of matrix
//! products a second, each a fraction of a millisecond.
//!
//! Work is a number of equal tasks that every participant takes one by one from an atomic counter, so
//! a thread that the system sets aside holds up its current task only. The caller takes tasks too:
//! with busy cores the work is done by whoever runs. Workers look out for new work for a short while
//! and then sleep. Which thread does which task must not show in the result; the kernels' tasks write
//! to separate places, so it cannot.
//!
//! Several callers may use a pool at once: each offers its own job, and free workers join any.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

/// How often a worker looks for new work before it sleeps: some tens of microseconds, longer than
/// the pauses between the products of one token.
const SPINS: usize = 4000;
/// How often a caller looks whether the others are done before it offers its core to them.
const SPINS_WAITING: usize = 400;

/// Threads that wait for work. Dropping the pool ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Jobs that can still be joined. Each pointer is good for as long as it is listed.
    board: Mutex<Board>,
    wake: Condvar,
    /// Changes whenever something was put on the board; lets workers look out without the lock.
    news: AtomicUsize,
}

#[derive(Default)]
struct Board {
    jobs: Vec<JobPointer>,
    sleeping: usize,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq)]
struct JobPointer(*const Job);

// SAFETY: a job is only read through the pointer, all its fields are `Sync`, and it outlives every
// participant: `Pool::run` leaves only when none is left.
unsafe impl Send for JobPointer {}

/// One call of [`Pool::run`]; it lives on the caller's stack.
struct Job {
    /// The caller's closure, its lifetime erased.
    task: *const (dyn Fn(usize, usize) + Sync),
    tasks: usize,
    /// The next task that nobody has taken; at or above `tasks` if there is none.
    next: AtomicUsize,
    /// Workers that have joined so far; each gets a slot of its own, the caller has slot 0.
    joined: AtomicUsize,
    /// Workers that have joined and not left.
    inside: AtomicUsize,
    /// What the first task that panicked said.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job {
    /// Takes tasks until there is none. A panic ends the job for everybody and is kept.
    fn work(&self, slot: usize) {
        // SAFETY: the closure outlives the job (see `Pool::run`).
        let task = unsafe { &*self.task };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let index = self.next.fetch_add(1, Ordering::Relaxed);
                if index >= self.tasks {
                    return;
                }
                task(slot, index);
            }
        }));
        if let Err(panic) = outcome {
            self.next.store(self.tasks, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        // Nothing can panic while the board is held, so a poisoned one is as good as any.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker(&self, workers: usize) {
        let mut seen = 0;
        loop {
            for _ in 0..SPINS {
                if self.news.load(Ordering::Acquire) != seen {
                    break;
                }
                std::hint::spin_loop();
            }
            let mut board = self.board();
            let job = loop {
                if board.closed {
                    return;
                }
                seen = self.news.load(Ordering::Relaxed);
                let open = |job: &&JobPointer| {
                    // SAFETY: it is listed and the lock is held, so its caller has not left.
                    let job = unsafe { &*job.0 };
                    job.next.load(Ordering::Relaxed) < job.tasks && job.joined.load(Ordering::Relaxed) < workers
                };
                if let Some(job) = board.jobs.iter().find(open) {
                    // SAFETY: as above; from here on `inside` keeps its caller waiting.
                    let job = unsafe { &*job.0 };
                    job.inside.fetch_add(1, Ordering::Relaxed);
                    break job;
                }
                board.sleeping += 1;
                board = self.wake.wait(board).unwrap_or_else(PoisonError::into_inner);
                board.sleeping -= 1;
            };
            let slot = job.joined.fetch_add(1, Ordering::Relaxed) + 1;
            drop(board);
            job.work(slot);
            // The last touch: everything the tasks wrote is visible to the caller that sees it.
            job.inside.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Pool {
    /// A pool whose jobs run on up to `threads` threads, the caller among them. Where threads cannot
    /// be had, it has fewer.
    pub fn new(threads: usize) -> Self {
        let shared =
            Arc::new(Shared { board: Mutex::new(Board::default()), wake: Condvar::new(), news: AtomicUsize::new(0) });
        let wanted = threads.saturating_sub(1);
        let start = |index: usize| {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name(format!("exact-{index}"));
            builder.spawn(move || shared.worker(wanted)).ok()
        };
        let workers = (0..wanted).map_while(start).collect();
        Self { shared, workers }
    }

    /// Most threads that work on one job, and so the number of slots that tasks may see.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(slot, index)` once for every index below `tasks`, on several threads, and returns
    /// when all are done. Participants have different slots, all below [`Pool::threads`], so a slot
    /// may own scratch memory.
    ///
    /// # Panics
    /// If a task does, with its panic; other tasks may then not have run.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() {
            for index in 0..tasks {
                task(0, index);
            }
            return;
        }
        // SAFETY: only the lifetime changes. The job does not leave this function: nobody can join
        // once it is off the board, and we wait for all that had joined.
        let task: &'static (dyn Fn(usize, usize) + Sync) = unsafe { std::mem::transmute(task) };
        let job = Job {
            task,
            tasks,
            next: AtomicUsize::new(0),
            joined: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            panic: Mutex::new(None),
        };
        let pointer = JobPointer(&raw const job);
        {
            let mut board = self.shared.board();
            board.jobs.push(pointer);
            self.shared.news.fetch_add(1, Ordering::Release);
            if board.sleeping > 0 {
                self.shared.wake.notify_all();
            }
        }
        job.work(0);
        self.shared.board().jobs.retain(|listed| *listed != pointer);
        let mut spins = 0;
        while job.inside.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < SPINS_WAITING {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.board().closed = true;
        self.shared.news.fetch_add(1, Ordering::Release);
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // Tasks' panics were caught; a worker itself does not panic.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_task_runs_once_whoever_calls() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        for tasks in [0, 1, 2, 7, 300] {
                            let counts: Vec<_> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                            pool.run(tasks, &|slot, index| {
                                assert!(slot < pool.threads());
                                counts[index].fetch_add(1, Ordering::Relaxed);
                            });
                            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn slots_are_never_shared_within_a_job() {
        let pool = Pool::new(4);
        for _ in 0..200 {
            let busy: Vec<_> = (0..pool.threads()).map(|_| AtomicU32::new(0)).collect();
            pool.run(50, &|slot, _| {
                assert_eq!(busy[slot].fetch_add(1, Ordering::SeqCst), 0);
                std::hint::spin_loop();
                busy[slot].fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = Pool::new(4);
        for _ in 0..20 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, &|_, index| assert_ne!(index, 13, "unlucky"));
            }));
            assert!(outcome.is_err());
        }
        pool.run(64, &|_, _| {});
    }
}
