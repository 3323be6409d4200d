//! What guests can call, as `ABI.md` says it. Whatever they hand over is checked; whatever is done for
//! them is paid for in fuel, by a formula.

use crate::{
    guest::{Failure, NoResult},
    kernels::{self, Kernels},
    limits::Limits,
    wasi,
};
use althing_exact::{LoadError, TensorPlace, tensors::tensor_places};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};
use wasmtime::{Caller, Engine, Error, Linker, Memory};

type Result<T, E = Error> = std::result::Result<T, E>;

/// The version of the ABI: its functions, their costs, and all limits.
pub const ABI_VERSION: i32 = 1;

/// What each call costs beside the bytes that it moves.
const CALL_FUEL: u64 = 64;
/// Longest text of a refusal, and of a file's name, bytes.
const TEXT_BYTES_MAX: u32 = 4 << 10;
/// A piece of an output is at least this part of what there is of it: the first 4 KiB come as they are made.
const PIECES: usize = 4 << 10;
/// What is kept of the log of a run, bytes.
const LOG_BYTES_MAX: usize = 16 << 10;

/// The files that a guest can read: those of its own package, by name.
#[derive(Debug, Default)]
pub struct Files {
    files: Vec<(String, Vec<u8>)>,
    /// In which file a tensor is, and where.
    tensors: BTreeMap<String, (usize, TensorPlace)>,
    /// Bytes of the files that have tensors.
    weights_bytes: u64,
}

impl Files {
    /// These files. A handle is a place in the order of names, so it outlives a snapshot.
    pub fn new(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort_by(|one, other| one.0.cmp(&other.0));
        files.dedup_by(|one, other| one.0 == other.0);
        Self { files, tensors: BTreeMap::new(), weights_bytes: 0 }
    }

    /// The same, with the tensors of these files to be opened: safetensors or GGUF. They stay readable.
    ///
    /// # Errors
    /// If one of them is missing or malformed.
    pub fn with_weights(mut self, names: &[String]) -> Result<Self, LoadError> {
        for name in names {
            let missing = || LoadError::Weights(format!("the package has no file {name:?}"));
            let file = self.open(name).ok_or_else(missing)?;
            for (tensor, place) in tensor_places(&self.files[file].1)? {
                self.tensors.insert(tensor, (file, place));
            }
        }
        let files: BTreeSet<_> = names.iter().filter_map(|name| self.open(name)).collect();
        self.weights_bytes = files.into_iter().map(|file| self.files[file].1.len() as u64).sum();
        Ok(self)
    }

    /// Bytes of the files that have tensors.
    pub(crate) fn weights_bytes(&self) -> u64 {
        self.weights_bytes
    }

    /// A tensor, and its bytes.
    pub(crate) fn tensor(&self, name: &str) -> Option<(&TensorPlace, &[u8])> {
        let (file, place) = self.tensors.get(name)?;
        Some((place, self.files[*file].1.get(place.bytes.clone())?))
    }

    fn open(&self, name: &str) -> Option<usize> {
        self.files.binary_search_by(|(file, _)| file.as_str().cmp(name)).ok()
    }

    fn get(&self, handle: u32) -> Option<&[u8]> {
        self.files.get(usize::try_from(handle).ok()?).map(|(_, bytes)| bytes.as_slice())
    }
}

/// How a run says that its answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finish {
    /// Whether the answer was cut where it was long enough.
    pub by_length: bool,
    /// Tokens of the input, as the guest counts them.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub completion_tokens: u32,
}

/// Why a call does not come back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error(transparent)]
    NoResult(#[from] NoResult),
}

/// Whether it is still wanted that a guest works.
#[derive(Debug)]
pub(crate) struct Wanted {
    given_up: AtomicBool,
    begun: Instant,
    time_max: Duration,
}

impl Wanted {
    pub(crate) fn for_at_most(time_max: Duration) -> Self {
        Self { given_up: AtomicBool::new(false), begun: Instant::now(), time_max }
    }

    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<(), NoResult> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err(NoResult::GivenUp);
        }
        if self.begun.elapsed() > self.time_max { Err(NoResult::TooSlow) } else { Ok(()) }
    }
}

/// One guest's side of the host.
pub(crate) struct Host {
    pub(crate) files: Arc<Files>,
    pub(crate) limits: Limits,
    /// What it runs on; `None` during `init`.
    pub(crate) task: Option<Task>,
    pub(crate) memory: Option<Memory>,
    /// Whether it asked for more memory than it may have.
    pub(crate) starved: bool,
    pub(crate) wanted: Arc<Wanted>,
    pub(crate) log: Vec<u8>,
    /// State of the numbers that stand for chance.
    pub(crate) chance: u64,
    pub(crate) kernels: Kernels,
}

/// What a run has and makes.
pub(crate) struct Task {
    pub(crate) input: Arc<[u8]>,
    pub(crate) seed: u64,
    pub(crate) output: Vec<u8>,
    /// Gets what is emitted as soon as it is.
    pub(crate) pieces: Sender<Vec<u8>>,
    /// What was emitted and is not on its way yet.
    pub(crate) held: Vec<u8>,
    pub(crate) finish: Option<Finish>,
}

impl Task {
    /// Hands over what is held.
    pub(crate) fn tell(&mut self) {
        if !self.held.is_empty() {
            // Who does not listen any more says so by giving up.
            let _ = self.pieces.send(std::mem::take(&mut self.held));
        }
    }
}

impl wasmtime::ResourceLimiter for Host {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let fits = desired as u64 <= self.limits.memory_bytes_max;
        self.starved |= !fits;
        Ok(fits)
    }

    // The limit allowed it, so it is the machine that has none: not a result.
    fn memory_grow_failed(&mut self, error: Error) -> Result<()> {
        Err(Error::new(Ended::from(NoResult::Host(format!("memory: {error}")))))
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(desired as u64 <= crate::limits::MODULE_LIMITS.table_elements_max)
    }
}

/// A call from a guest.
pub(crate) type Call<'a> = Caller<'a, Host>;

pub(crate) fn fail<T>(failure: Failure) -> Result<T> {
    Err(Error::new(Ended::from(failure)))
}

/// Takes fuel for a call, and for what it does: one for each byte that it moves, unless it says otherwise.
pub(crate) fn charge(call: &mut Call<'_>, fuel: u64) -> Result<()> {
    spend(call, CALL_FUEL.saturating_add(fuel))
}

/// Takes fuel.
pub(crate) fn spend(call: &mut Call<'_>, fuel: u64) -> Result<()> {
    match call.get_fuel()?.checked_sub(fuel) {
        Some(left) => call.set_fuel(left),
        None => {
            call.set_fuel(0)?;
            fail(Failure::OutOfFuel)
        }
    }
}

/// The guest's memory and its host, at once.
pub(crate) fn memory<'a>(call: &'a mut Call<'_>) -> (&'a mut [u8], &'a mut Host) {
    let memory = call.data().memory.expect("set before anything is called");
    memory.data_and_store_mut(call)
}

/// A range of the guest's memory.
pub(crate) fn range(memory: &[u8], start: u32, len: u32) -> Result<std::ops::Range<usize>> {
    let (start, len) = (start as usize, len as usize);
    match start.checked_add(len) {
        Some(end) if end <= memory.len() => Ok(start..end),
        _ => fail(Failure::BadAddress),
    }
}

fn text(call: &mut Call<'_>, start: u32, len: u32) -> Result<String> {
    let (memory, _) = memory(call);
    let range = range(memory, start, len.min(TEXT_BYTES_MAX))?;
    Ok(String::from_utf8_lossy(&memory[range]).into_owned())
}

/// Copies from `source` into the guest's memory as much as there is from `offset` on; how much that was.
fn copy_out(source: &[u8], offset: u64, target: &mut [u8]) -> u32 {
    let rest = usize::try_from(offset).ok().and_then(|offset| source.get(offset..)).unwrap_or_default();
    let len = rest.len().min(target.len());
    target[..len].copy_from_slice(&rest[..len]);
    u32::try_from(len).expect("memories have 32-bit addresses")
}

fn input_len(call: Call<'_>) -> u32 {
    let len = call.data().task.as_ref().map_or(0, |task| task.input.len());
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn input_read(mut call: Call<'_>, offset: u32, start: u32, len: u32) -> Result<u32> {
    charge(&mut call, len.into())?;
    let (memory, host) = memory(&mut call);
    let range = range(memory, start, len)?;
    let input: &[u8] = host.task.as_ref().map_or(&[], |task| &task.input);
    Ok(copy_out(input, offset.into(), &mut memory[range]))
}

fn seed(call: Call<'_>) -> u64 {
    call.data().task.as_ref().map_or(0, |task| task.seed)
}

fn blob_open(mut call: Call<'_>, start: u32, len: u32) -> Result<i32> {
    charge(&mut call, len.into())?;
    if len > TEXT_BYTES_MAX {
        return Ok(-1);
    }
    let name = text(&mut call, start, len)?;
    let handle = call.data().files.open(&name);
    Ok(handle.and_then(|handle| i32::try_from(handle).ok()).unwrap_or(-1))
}

fn blob_len(call: Call<'_>, handle: u32) -> i64 {
    call.data().files.get(handle).and_then(|blob| i64::try_from(blob.len()).ok()).unwrap_or(-1)
}

fn blob_read(mut call: Call<'_>, handle: u32, offset: u64, start: u32, len: u32) -> Result<u32> {
    charge(&mut call, len.into())?;
    let files = call.data().files.clone();
    let Some(blob) = files.get(handle) else { return fail(Failure::BadHandle) };
    let (memory, _) = memory(&mut call);
    let range = range(memory, start, len)?;
    Ok(copy_out(blob, offset, &mut memory[range]))
}

fn emit(mut call: Call<'_>, start: u32, len: u32) -> Result<()> {
    charge(&mut call, len.into())?;
    let (memory, host) = memory(&mut call);
    let range = range(memory, start, len)?;
    let max = host.limits.output_bytes_max;
    let Some(task) = &mut host.task else { return fail(Failure::NotInInit) };
    if (task.output.len() + range.len()) as u64 > max {
        return fail(Failure::OutputTooLarge { max });
    }
    let piece = &memory[range];
    task.output.extend_from_slice(piece);
    task.held.extend_from_slice(piece);
    // A long output does not come as millions of single bytes.
    if task.held.len() >= task.output.len() / PIECES {
        task.tell();
    }
    Ok(())
}

fn finish(mut call: Call<'_>, by_length: u32, prompt_tokens: u32, completion_tokens: u32) -> Result<()> {
    charge(&mut call, 0)?;
    let Some(task) = &mut call.data_mut().task else { return fail(Failure::NotInInit) };
    task.finish = Some(Finish { by_length: by_length != 0, prompt_tokens, completion_tokens });
    Ok(())
}

fn refuse(mut call: Call<'_>, start: u32, len: u32) -> Result<()> {
    charge(&mut call, len.into())?;
    let why = text(&mut call, start, len)?;
    fail(Failure::Refused(why))
}

fn log(mut call: Call<'_>, start: u32, len: u32) -> Result<()> {
    charge(&mut call, len.into())?;
    let (memory, host) = memory(&mut call);
    let range = range(memory, start, len)?;
    host.note(&memory[range]);
    Ok(())
}

impl Host {
    /// Keeps what a guest says about itself, as far as there is room.
    pub(crate) fn note(&mut self, text: &[u8]) {
        let room = LOG_BYTES_MAX.saturating_sub(self.log.len());
        self.log.extend_from_slice(&text[..text.len().min(room)]);
    }
}

/// Everything that a guest can import, by module and name.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    let module = "althing";
    linker.func_wrap(module, "input_len", input_len)?;
    linker.func_wrap(module, "input_read", input_read)?;
    linker.func_wrap(module, "seed", seed)?;
    linker.func_wrap(module, "blob_open", blob_open)?;
    linker.func_wrap(module, "blob_len", blob_len)?;
    linker.func_wrap(module, "blob_read", blob_read)?;
    linker.func_wrap(module, "emit", emit)?;
    linker.func_wrap(module, "finish", finish)?;
    linker.func_wrap(module, "refuse", refuse)?;
    linker.func_wrap(module, "log", log)?;
    kernels::link(&mut linker)?;
    wasi::add(&mut linker)?;
    Ok(linker)
}
