//! Where runs are kept: durably, before anything is sent. (T-15)

use crate::record::{Run, VERSION};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{
    fs::{File, TryLockError},
    io::Write as _,
    path::{Path, PathBuf},
};

/// Why a run was not kept or not found.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{path} is not a run's journal: {reason}")]
    Malformed { path: String, reason: String },
    #[error("another process works on the run in {0}")]
    Busy(String),
}

/// Where one run is kept.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// The run as it was kept last; `None` before the first time.
    async fn load(&self) -> Result<Option<Run>, JournalError>;
    /// Keeps the run in place of what was kept before: all of it or nothing, and durable when this
    /// returns.
    async fn save(&self, run: &Run) -> Result<(), JournalError>;
}

/// A run in memory, for simulations.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<Option<Run>>);

#[async_trait]
impl Journal for MemoryJournal {
    async fn load(&self) -> Result<Option<Run>, JournalError> {
        Ok(self.0.lock().clone())
    }
    async fn save(&self, run: &Run) -> Result<(), JournalError> {
        *self.0.lock() = Some(run.clone());
        Ok(())
    }
}

/// A run in a directory: `journal.json`, and a lock that one process at a time holds.
#[derive(Debug)]
pub struct FileJournal {
    directory: PathBuf,
    _lock: File,
}

fn journal_path(directory: &Path) -> PathBuf {
    directory.join("journal.json")
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> JournalError {
    let path = path.display().to_string();
    move |source| JournalError::Io { path: path.clone(), source }
}

impl FileJournal {
    /// Opens the directory of a run, made if needed, for this process alone: two that go on with one
    /// run would pay twice.
    ///
    /// # Errors
    /// If the directory cannot be used, or another process uses it.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory).map_err(failed(&directory))?;
        let path = directory.join("lock");
        let lock = File::create(&path).map_err(failed(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(JournalError::Busy(directory.display().to_string())),
            Err(TryLockError::Error(source)) => Err(failed(&path)(source)),
        }
    }

    /// Reads a run without working on it.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn read(directory: &Path) -> Result<Option<Run>, JournalError> {
        let path = journal_path(directory);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path)(error)),
        };
        let malformed = |reason: String| JournalError::Malformed { path: path.display().to_string(), reason };
        let run: Run = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        if run.version != VERSION {
            return Err(malformed(format!("its format is version {}, this program knows {VERSION}", run.version)));
        }
        Ok(Some(run))
    }

    fn write(&self, run: &Run) -> std::io::Result<()> {
        let path = journal_path(&self.directory);
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(run)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(&self.directory)?.sync_all()
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn load(&self) -> Result<Option<Run>, JournalError> {
        Self::read(&self.directory)
    }
    async fn save(&self, run: &Run) -> Result<(), JournalError> {
        self.write(run).map_err(failed(&journal_path(&self.directory)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Program;
    use althing_types::{Address, ChainId};

    fn run() -> Run {
        let program = "title = \"t\"\nmodel = \"m\"\nbudget = \"0.5\"\n[[step]]\nname = \"a\"\nprompt = \"x\"";
        Run {
            version: VERSION,
            chain: ChainId([1; 32]),
            account: Address([2; 20]),
            program: Program::parse(program).unwrap(),
            inputs: [("a".into(), "b".into())].into(),
            parent: None,
            started_ms: 3,
            attempts: Vec::new(),
        }
    }

    #[test]
    fn a_run_survives_a_restart_and_belongs_to_one_process() {
        // T-15
        let directory = tempfile::tempdir().unwrap();
        let journal = FileJournal::open(directory.path()).unwrap();
        assert!(FileJournal::read(directory.path()).unwrap().is_none());
        assert!(matches!(FileJournal::open(directory.path()), Err(JournalError::Busy(_))));
        journal.write(&run()).unwrap();
        drop(journal);
        let journal = FileJournal::open(directory.path()).unwrap();
        assert_eq!(FileJournal::read(directory.path()).unwrap(), Some(run()));
        // Half a file that a crash left beside it is never read.
        std::fs::write(directory.path().join("journal.new"), "{").unwrap();
        assert_eq!(FileJournal::read(directory.path()).unwrap(), Some(run()));
        journal.write(&Run { version: 2, ..run() }).unwrap();
        assert!(matches!(FileJournal::read(directory.path()), Err(JournalError::Malformed { .. })));
    }
}
