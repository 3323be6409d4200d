//! A module that is ready, and its runs.

use crate::{
    engine::{HOST_STACK_BYTES, STACK_BYTES, Working, engine},
    host::{ABI_VERSION, Ended, Files, Finish, Host, Task, Wanted, linker},
    kernels::Kernels,
    limits::{Limits, MODULE_LIMITS, Patience},
    module::{DEPTH, ModuleError, prepare},
};
use althing_exact::Plan;
use futures::FutureExt;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};
use wasmtime::{Engine, Error, ExternType, Instance, InstancePre, Linker, Module, Store, Trap, UpdateDeadline, Val};
use wasmtime_wizer::{InstanceState, SnapshotVal, ValType, Wizer};

pub use crate::engine::Compile;

/// How a run failed: a result, the same on every machine, and so are its words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the model ran out of fuel")]
    OutOfFuel,
    #[error("the model needs more memory than its package allows")]
    OutOfMemory,
    #[error("the model's calls nest too deeply")]
    TooDeep,
    #[error("the output is larger than {max} bytes, the most that the package allows")]
    OutputTooLarge { max: u64 },
    /// The guest's own words.
    #[error("{0}")]
    Refused(String),
    #[error("the model gave an address outside its memory")]
    BadAddress,
    #[error("the model gave a handle of nothing")]
    BadHandle,
    #[error("the model gave sizes that do not fit together")]
    BadShape,
    #[error("the model did in init what only a run can do")]
    NotInInit,
    #[error("the model exited with code {0}")]
    Exited(u32),
    #[error("the model stopped: {0}")]
    Trapped(&'static str),
}

/// Why there is neither an output nor a failure: nothing follows from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoResult {
    #[error("the run was given up")]
    GivenUp,
    #[error("it took longer than this machine allows")]
    TooSlow,
    #[error("this machine failed: {0}")]
    Host(String),
}

/// Why a run has no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error(transparent)]
    NoResult(#[from] NoResult),
}

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// All that it emitted.
    pub output: Vec<u8>,
    /// What it said about its end, if it did.
    pub finish: Option<Finish>,
    /// What it used, the same on every machine.
    pub fuel: u64,
}

/// A module that is ready to run: compiled, its `init` done, and the memory that this left kept for all runs.
pub struct Guest {
    start: InstancePre<Host>,
    engine: &'static Engine,
    files: Arc<Files>,
    limits: Limits,
    patience: Patience,
    left: Left,
}

/// What `init` left beside its memory.
struct Left {
    fuel: u64,
    log: String,
    kernels: Kernels,
}

/// How a guest is run here.
pub struct Config {
    pub limits: Limits,
    pub compile: Compile,
    pub patience: Patience,
    /// Where its kernels run.
    pub plan: Plan,
}

impl Config {
    /// Carefully compiled, on one thread, with ordinary patience.
    pub fn new(limits: Limits) -> Self {
        Self { limits, compile: Compile::Optimized, patience: Patience::default(), plan: Plan::new(1) }
    }
}

impl Guest {
    /// Makes a module ready.
    ///
    /// # Errors
    /// Why it is not run.
    pub fn new(module: &[u8], files: Files, config: Config) -> Result<Self, ModuleError> {
        let Config { limits, compile, patience, plan } = config;
        let counted = prepare(module)?;
        let host = |error: Error| ModuleError::Compile(format!("{error:#}"));
        let engine = engine(compile).map_err(ModuleError::Compile)?;
        let linker = linker(engine).map_err(host)?;
        let mut guest = Prepared { engine, linker, files: Arc::new(files), limits, patience, plan };
        let (module, left) = if counted.has_init {
            guest.initialize(&counted.module)?
        } else {
            let module = guest.compile(counted.module)?;
            guest.check(&module)?;
            (module, Left { fuel: 0, log: String::new(), kernels: Kernels::new(guest.plan.clone()) })
        };
        let start = guest.linker.instantiate_pre(&module).map_err(host)?;
        let Prepared { files, .. } = guest;
        let ready = Self { start, engine, files, limits, patience, left };
        ready.check_version()?;
        Ok(ready)
    }

    fn check_version(&self) -> Result<(), ModuleError> {
        let version = on_guest_stack(self.patience.init_max, |wanted| {
            let mut store = store(self.engine, self.host(None, wanted), self.limits.run_fuel_max);
            let instance = instantiate(&mut store, |store| self.start.instantiate(store))?;
            call::<i32>(&mut store, &instance, "abi_version")
        });
        match version.map_err(of_init)? {
            ABI_VERSION => Ok(()),
            got => Err(ModuleError::AbiVersion { got, supported: ABI_VERSION }),
        }
    }

    fn host(&self, task: Option<Task>, wanted: &Arc<Wanted>) -> Host {
        host(&self.files, self.limits, task, wanted, self.left.kernels.for_run())
    }

    /// Runs on `input`. `emit` gets what comes out as soon as it does, and says whether to go on.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn run(&self, input: &[u8], seed: u64, emit: &mut dyn FnMut(&[u8]) -> bool) -> Result<Ran, Stop> {
        let wanted = Arc::new(Wanted::for_at_most(self.patience.run_max));
        let (pieces, emitted) = mpsc::channel();
        let task = Task { input: input.into(), seed, output: Vec::new(), pieces, held: Vec::new(), finish: None };
        std::thread::scope(|scope| {
            let thread = spawn(scope, || self.run_task(task, &wanted))?;
            for piece in emitted {
                if !emit(&piece) {
                    wanted.give_up();
                }
            }
            join(thread)
        })
    }

    fn run_task(&self, task: Task, wanted: &Arc<Wanted>) -> Result<Ran, Stop> {
        let fuel_max = self.limits.run_fuel_max;
        let mut store = store(self.engine, self.host(Some(task), wanted), fuel_max);
        let instance = instantiate(&mut store, |store| self.start.instantiate(store))?;
        call::<()>(&mut store, &instance, "run")?;
        let left = store.get_fuel().expect("fuel is on");
        let mut task = store.into_data().task.expect("it was given one");
        task.tell();
        let Task { output, finish, .. } = task;
        Ok(Ran { output, finish, fuel: fuel_max - left })
    }

    /// What `init` used.
    pub fn init_fuel(&self) -> u64 {
        self.left.fuel
    }

    /// Memory that the weights take that `init` opened, bytes.
    pub fn weights_bytes(&self) -> u64 {
        self.left.kernels.weights_bytes()
    }

    /// The most memory that a run takes beside them, bytes.
    pub fn run_bytes_max(&self) -> u64 {
        let Limits { memory_bytes_max, cache_bytes_max, output_bytes_max, .. } = self.limits;
        memory_bytes_max.saturating_add(cache_bytes_max).saturating_add(output_bytes_max)
    }

    /// What the guest said about itself in `init`.
    pub fn log(&self) -> &str {
        &self.left.log
    }
}

fn host(files: &Arc<Files>, limits: Limits, task: Option<Task>, wanted: &Arc<Wanted>, kernels: Kernels) -> Host {
    let chance = task.as_ref().map_or(0, |task| task.seed);
    let (files, wanted) = (files.clone(), wanted.clone());
    Host { files, limits, task, memory: None, starved: false, wanted, log: Vec::new(), chance, kernels }
}

/// A module on its way to a [`Guest`].
struct Prepared {
    engine: &'static Engine,
    linker: Linker<Host>,
    files: Arc<Files>,
    limits: Limits,
    patience: Patience,
    plan: Plan,
}

impl Prepared {
    /// The host of a guest that has no task.
    fn host(&self, wanted: &Arc<Wanted>) -> Host {
        host(&self.files, self.limits, None, wanted, Kernels::new(self.plan.clone()))
    }

    /// Compiles, as long as there is patience. A compiler cannot be stopped: one that takes longer ends
    /// by itself, and what it made is dropped.
    fn compile(&self, module: Vec<u8>) -> Result<Module, ModuleError> {
        let engine = self.engine;
        let (done, compiled) = mpsc::channel();
        let work = move || {
            let compiled = catch_unwind(AssertUnwindSafe(|| Module::new(engine, &module)));
            let _ = done.send(compiled);
        };
        let thread = std::thread::Builder::new().name("althing-compile".into());
        thread.spawn(work).map_err(|error| ModuleError::Compile(error.to_string()))?;
        match compiled.recv_timeout(self.patience.compile_max) {
            Ok(Ok(module)) => module.map_err(|error| ModuleError::Compile(format!("{error:#}"))),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                Err(ModuleError::Compile("the compiler panicked".into()))
            }
            Err(RecvTimeoutError::Timeout) => Err(ModuleError::SlowCompile(self.patience.compile_max)),
        }
    }

    /// Whether everything that it imports is there, and its memory fits.
    fn check(&mut self, module: &Module) -> Result<(), ModuleError> {
        let wanted = Arc::new(Wanted::for_at_most(Duration::ZERO));
        let mut store = Store::new(self.engine, self.host(&wanted));
        for import in module.imports() {
            let (from, name) = (import.module().to_owned(), import.name().to_owned());
            let Some(there) = self.linker.get_by_import(&mut store, &import) else {
                return Err(ModuleError::ForbiddenImport { module: from, name });
            };
            let same = match (there.ty(&store), import.ty()) {
                (ExternType::Func(there), ExternType::Func(wanted)) => there.matches(&wanted),
                _ => false,
            };
            if !same {
                return Err(ModuleError::ImportType { module: from, name });
            }
        }
        if let Some(ExternType::Memory(memory)) = module.get_export("memory") {
            let (got, max) = (memory.minimum().saturating_mul(memory.page_size()), self.limits.memory_bytes_max);
            if got > max {
                return Err(ModuleError::TooLarge { what: "bytes of memory at its start", got, max });
            }
        }
        Ok(())
    }

    /// Runs `init`, and compiles the module anew with the memory that it left.
    fn initialize(&mut self, counted: &[u8]) -> Result<(Module, Left), ModuleError> {
        let mut wizer = Wizer::new();
        wizer.init_func("init");
        let malformed = |error: Error| ModuleError::Malformed(format!("{error:#}"));
        let (context, instrumented) = wizer.instrument(counted).map_err(malformed)?;
        let module = self.compile(instrumented)?;
        self.check(&module)?;
        let made = on_guest_stack(self.patience.init_max, |wanted| {
            let mut store = store(self.engine, self.host(wanted), self.limits.init_fuel_max);
            let instance = instantiate(&mut store, |store| self.linker.instantiate(store, &module))?;
            for name in ["_initialize", "init"] {
                if instance.get_func(&mut store, name).is_some() {
                    call::<()>(&mut store, &instance, name)?;
                }
            }
            let fuel = self.limits.init_fuel_max - store.get_fuel().expect("fuel is on");
            reset_depth(&mut store, &instance);
            let host = store.data_mut();
            let log = String::from_utf8_lossy(&std::mem::take(&mut host.log)).into_owned();
            let left = Left { fuel, log, kernels: host.kernels.for_run() };
            let mut state = State { store: &mut store, instance };
            // Nothing of ours waits for anything.
            let snapshot = wizer.snapshot(&context, &mut state).now_or_never().expect("it does not wait");
            Ok((snapshot.map_err(|error| NoResult::Host(format!("{error:#}")))?, left))
        });
        let (snapshot, left) = made.map_err(of_init)?;
        Ok((self.compile(snapshot)?, left))
    }
}

fn of_init(stop: Stop) -> ModuleError {
    match stop {
        Stop::Failed(failure) => ModuleError::Init(failure),
        Stop::NoResult(why) => ModuleError::InitNoResult(why),
    }
}

/// What a snapshot is taken of.
struct State<'a> {
    store: &'a mut Store<Host>,
    instance: Instance,
}

impl InstanceState for State<'_> {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = self.instance.get_global(&mut *self.store, name).expect("it was given that export");
        match global.get(&mut *self.store) {
            Val::I32(value) => SnapshotVal::I32(value),
            Val::I64(value) => SnapshotVal::I64(value),
            Val::F32(value) => SnapshotVal::F32(value),
            Val::F64(value) => SnapshotVal::F64(value),
            Val::V128(value) => SnapshotVal::V128(value.as_u128()),
            _ => unreachable!("references in globals are refused before"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = self.instance.get_memory(&mut *self.store, name).expect("it was given that export");
        contents(memory.data(&*self.store));
    }
}

fn store(engine: &Engine, host: Host, fuel: u64) -> Store<Host> {
    let wanted = host.wanted.clone();
    let mut store = Store::new(engine, host);
    store.limiter(|host| host);
    store.set_fuel(fuel).expect("fuel is on");
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| match wanted.check() {
        Ok(()) => Ok(UpdateDeadline::Continue(1)),
        Err(why) => Err(Error::new(Ended::from(why))),
    });
    store
}

fn instantiate(
    store: &mut Store<Host>,
    make: impl FnOnce(&mut Store<Host>) -> wasmtime::Result<Instance>,
) -> Result<Instance, Stop> {
    let instance = make(store).map_err(|error| stop(store, None, &error))?;
    store.data_mut().memory = instance.get_memory(&mut *store, "memory");
    Ok(instance)
}

fn reset_depth(store: &mut Store<Host>, instance: &Instance) {
    let depth = instance.get_global(&mut *store, DEPTH).expect("modules are given one");
    depth.set(store, Val::I32(0)).expect("it is a number that can be set");
}

/// Calls a function that takes nothing.
fn call<R: wasmtime::WasmResults>(store: &mut Store<Host>, instance: &Instance, name: &str) -> Result<R, Stop> {
    let function = instance.get_typed_func::<(), R>(&mut *store, name);
    let function = function.map_err(|_| Failure::Trapped("a function of the ABI has another type than it should"))?;
    reset_depth(store, instance);
    function.call(&mut *store, ()).map_err(|error| stop(store, Some(instance), &error))
}

/// What became of a run that did not come back.
fn stop(store: &mut Store<Host>, instance: Option<&Instance>, error: &Error) -> Stop {
    if let Some(ended) = error.downcast_ref::<Ended>() {
        return match ended {
            Ended::Failed(failure) => failure.clone().into(),
            Ended::NoResult(why) => why.clone().into(),
        };
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        return NoResult::Host(format!("{error:#}")).into();
    };
    let depth = instance.and_then(|instance| instance.get_global(&mut *store, DEPTH));
    let depth = depth.and_then(|depth| depth.get(&mut *store).i32()).unwrap_or(0);
    match trap {
        Trap::UnreachableCodeReached if depth.cast_unsigned() > MODULE_LIMITS.call_depth_max => Failure::TooDeep.into(),
        // What guests do that get no memory.
        Trap::UnreachableCodeReached if store.data().starved => Failure::OutOfMemory.into(),
        Trap::UnreachableCodeReached => Failure::Trapped("it panicked").into(),
        Trap::OutOfFuel => Failure::OutOfFuel.into(),
        Trap::MemoryOutOfBounds => Failure::Trapped("an address outside its memory").into(),
        Trap::TableOutOfBounds => Failure::Trapped("an index outside its table").into(),
        Trap::IndirectCallToNull => Failure::Trapped("a call of nothing").into(),
        Trap::BadSignature => Failure::Trapped("a call of a function of another type").into(),
        Trap::IntegerOverflow => Failure::Trapped("an integer overflow").into(),
        Trap::IntegerDivisionByZero => Failure::Trapped("a division by zero").into(),
        Trap::BadConversionToInteger => Failure::Trapped("a number that is no integer").into(),
        // The stack of the machine ended before the count did: another machine may see it otherwise.
        other => NoResult::Host(other.to_string()).into(),
    }
}

/// Does `work`, which calls a guest, on a thread whose stack is large enough.
fn on_guest_stack<T: Send>(
    time_max: Duration,
    work: impl FnOnce(&Arc<Wanted>) -> Result<T, Stop> + Send,
) -> Result<T, Stop> {
    let wanted = Arc::new(Wanted::for_at_most(time_max));
    std::thread::scope(|scope| join(spawn(scope, || work(&wanted))?))
}

type Running<'scope, T> = std::thread::ScopedJoinHandle<'scope, Result<T, Stop>>;

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    work: impl FnOnce() -> Result<T, Stop> + Send + 'scope,
) -> Result<Running<'scope, T>, Stop> {
    let thread = std::thread::Builder::new().name("althing-guest".into()).stack_size(STACK_BYTES + HOST_STACK_BYTES);
    let thread = thread.spawn_scoped(scope, || {
        let _working = Working::new();
        work()
    });
    thread.map_err(|error| NoResult::Host(error.to_string()).into())
}

fn join<T>(thread: Running<'_, T>) -> Result<T, Stop> {
    thread.join().map_err(|_| NoResult::Host("it panicked".into()))?
}
