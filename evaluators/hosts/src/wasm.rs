//! A plugin as a WebAssembly module: interpreted here, with memory, steps, and no other rights.
//!
//! Promise: a module imports nothing, so it reads no file, clock or socket; its memory, tables, stack, steps and answers are bounded; each
//! batch has an instance of its own, so nothing stays from one to the next. A module runs on blocking threads, on half as many as there are
//! cores, and looks up every few milliseconds whether anybody still waits; modules have no bound in common, so none waits for another.
//! Not here: what the JSON says (`json`).
//! Kept by: `tests/it/abuse.rs`, the modules; `examples.rs` there.

pub(crate) mod json;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use emberd_proto::evaluator::v1 as pb;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wasmi::{
    Config, EnforcedLimits, Engine, Error, Instance, Linker, Memory, ResumableCall, Store, StoreLimits,
    StoreLimitsBuilder, TrapCode, Val,
};

use crate::catalog::{self, Catalog};
use crate::config::WasmLimits;
use crate::plugin::{Fault, Line, Live, Plugin, Responses, State};

/// Steps between looking up: some milliseconds.
const SLICE: u64 = 2_000_000;
/// Steps for the start function, and for each allocation; they cannot be interrupted.
const START_FUEL: u64 = 20_000_000;
const TABLE_ELEMENTS_MAX: usize = 100_000;
const STACK_BYTES_MAX: usize = 1 << 20;
const RECURSION_MAX: usize = 1_000;

/// Where modules run.
#[derive(Clone, Debug)]
pub(crate) struct Interpreters {
    engine: Engine,
    /// Threads at once, of each module.
    threads: usize,
}

impl Default for Interpreters {
    fn default() -> Self {
        let mut config = Config::default();
        config
            .consume_fuel(true)
            .enforced_limits(EnforcedLimits::strict())
            .set_max_recursion_depth(RECURSION_MAX)
            .set_max_stack_height(STACK_BYTES_MAX)
            .ignore_custom_sections(true);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
        Self { engine: Engine::new(&config), threads }
    }
}

/// A module that was read.
#[derive(Debug)]
pub(crate) struct Module {
    module: wasmi::Module,
    engine: Engine,
    threads: Arc<Semaphore>,
    limits: WasmLimits,
    message_bytes: usize,
}

/// Loads a module and has it described, once; a module does not change while emberd runs.
pub(crate) async fn keep(
    plugin: &Arc<Plugin>,
    path: &Path,
    limits: &WasmLimits,
    interpreters: &Interpreters,
    stop: &CancellationToken,
) {
    let (name, path, limits) = (plugin.name.clone(), path.to_owned(), limits.clone());
    let (interpreters, message_bytes) = (interpreters.clone(), plugin.config.bounds.message_bytes);
    let deadline = Instant::now() + plugin.config.bounds.start;
    let load = spawn_blocking(move || {
        let bytes = read(&path, limits.module_bytes)?;
        let module =
            wasmi::Module::new(&interpreters.engine, bytes).map_err(|error| format!("not a module: {error}"))?;
        let threads = Arc::new(Semaphore::new(interpreters.threads));
        let module = Module { module, engine: interpreters.engine, threads, limits, message_bytes };
        let catalog = module.describe(&name, deadline)?;
        Ok::<_, String>((module, catalog))
    });
    let loaded = tokio::select! {
        loaded = load => loaded.unwrap_or_else(|_| Err("the interpreter panicked".into())),
        () = stop.cancelled() => return,
    };
    match loaded {
        Ok((module, catalog)) => {
            plugin.is_now(State::Ready(Arc::new(Live::new(Line::Wasm(Arc::new(module)), catalog, None))));
        }
        Err(why) => plugin.is_down(&why, u32::MAX),
    }
}

/// The file, if it is not larger than a module may be. A sparse or growing file does not help: no more is read.
fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let mut bytes = Vec::new();
    if metadata.len() <= bytes_max {
        file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    }
    if metadata.len() > bytes_max || bytes.len() as u64 > bytes_max {
        return Err(format!("the module is larger than {bytes_max} bytes"));
    }
    Ok(bytes)
}

/// Asks a module, one request after the other.
pub(crate) fn call(module: Arc<Module>, requests: Vec<pb::EvaluateRequest>, deadline: Instant) -> Responses {
    let one = move |request: pb::EvaluateRequest| {
        let module = Arc::clone(&module);
        async move {
            let threads = Arc::clone(&module.threads);
            let thread = threads.acquire_owned().await.map_err(|_| Fault::Broken("stopping".into()))?;
            let waiting = Waiting(Arc::new(AtomicBool::new(true)));
            let waited_for = Arc::clone(&waiting.0);
            let run = spawn_blocking(move || {
                let _thread = thread;
                module.evaluate(&request, deadline, &waited_for)
            });
            let response = run.await.unwrap_or_else(|_| Err(Fault::Broken("the interpreter panicked".into())));
            drop(waiting);
            response
        }
    };
    stream::iter(requests).then(one).boxed()
}

/// Somebody waits for a module. When the wait is dropped, the module stops at its next look.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A module with memory of its own.
struct Running<'a> {
    module: &'a Module,
    store: Store<StoreLimits>,
    instance: Instance,
    memory: Memory,
    fuel_left: u64,
    deadline: Instant,
    waited_for: &'a AtomicBool,
}

impl Module {
    fn describe(&self, plugin: &str, deadline: Instant) -> Result<Catalog, String> {
        let always = AtomicBool::new(true);
        let run = || -> Result<pb::DescribeResponse, Fault> {
            let mut running = self.start(deadline, &always)?;
            let answer = running.answer("describe", &[])?;
            json::description(&answer).map_err(Fault::Broken)
        };
        let told = run().map_err(|fault| match fault {
            Fault::Broken(what) | Fault::Spent(what) => what,
        })?;
        catalog::read(plugin, told)
    }

    fn evaluate(
        &self,
        request: &pb::EvaluateRequest,
        deadline: Instant,
        waited_for: &AtomicBool,
    ) -> Result<pb::EvaluateResponse, Fault> {
        let text = json::request(request).map_err(Fault::Broken)?;
        let mut running = self.start(deadline, waited_for)?;
        let place = running.give(text.as_bytes())?;
        let answer =
            running.answer("evaluate", &[Val::I32(place), Val::I32(i32::try_from(text.len()).unwrap_or(i32::MAX))])?;
        json::response(&answer).map_err(Fault::Broken)
    }

    fn start<'a>(&'a self, deadline: Instant, waited_for: &'a AtomicBool) -> Result<Running<'a>, Fault> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(self.limits.memory_bytes)
            .table_elements(TABLE_ELEMENTS_MAX)
            .instances(1)
            .memories(1)
            .tables(4)
            .build();
        let engine = &self.engine;
        let mut store = Store::new(engine, limits);
        store.limiter(|limits| limits);
        store.set_fuel(START_FUEL.min(self.limits.fuel)).map_err(fault)?;
        let instance = Linker::new(engine).instantiate_and_start(&mut store, &self.module).map_err(fault)?;
        let memory = instance.get_memory(&store, "memory");
        let memory = memory.ok_or_else(|| Fault::Broken("it does not export its memory".into()))?;
        Ok(Running { module: self, store, instance, memory, fuel_left: self.limits.fuel, deadline, waited_for })
    }
}

impl Running<'_> {
    /// Puts bytes where the module wants them.
    fn give(&mut self, bytes: &[u8]) -> Result<i32, Fault> {
        let alloc = self.instance.get_typed_func::<i32, i32>(&self.store, "alloc").map_err(fault)?;
        self.store.set_fuel(START_FUEL.min(self.fuel_left)).map_err(fault)?;
        let length = i32::try_from(bytes.len()).map_err(|_| Fault::Broken("a batch of more than 2 GiB".into()))?;
        let place = alloc.call(&mut self.store, length).map_err(fault)?;
        self.memory
            .write(&mut self.store, place.cast_unsigned() as usize, bytes)
            .map_err(|_| Fault::Broken("alloc gave a place outside of the module's memory".into()))?;
        Ok(place)
    }

    /// Calls a function that returns `place << 32 | length` of its answer.
    fn answer(&mut self, function: &str, arguments: &[Val]) -> Result<Vec<u8>, Fault> {
        let function = self
            .instance
            .get_func(&self.store, function)
            .ok_or_else(|| Fault::Broken(format!("it does not export {function}")))?;
        let mut results = [Val::I64(0)];
        self.store.set_fuel(SLICE.min(self.fuel_left)).map_err(fault)?;
        let mut call = function.call_resumable(&mut self.store, arguments, &mut results).map_err(fault)?;
        loop {
            call = match call {
                ResumableCall::Finished => break,
                ResumableCall::HostTrap(_) => return Err(Fault::Broken("it calls what it was not given".into())),
                ResumableCall::OutOfFuel(paused) => {
                    self.refuel(paused.required_fuel())?;
                    paused.resume(&mut self.store, &mut results).map_err(fault)?
                }
            };
        }
        let [Val::I64(packed)] = results else { return Err(Fault::Broken("its answer is not an i64".into())) };
        let packed = packed.cast_unsigned();
        let (place, length) = ((packed >> 32) as usize, (packed & 0xffff_ffff) as usize);
        if length > self.module.message_bytes {
            return Err(Fault::Broken(format!("an answer of {length} bytes, at most {}", self.module.message_bytes)));
        }
        let data = self.memory.data(&self.store);
        let answer = place.checked_add(length).and_then(|end| data.get(place..end));
        answer.map(<[u8]>::to_vec).ok_or_else(|| Fault::Broken("its answer lies outside of its memory".into()))
    }

    /// The next slice, if there is fuel left and somebody still waits.
    fn refuel(&mut self, required: u64) -> Result<(), Fault> {
        let spent = SLICE.max(required);
        if Instant::now() >= self.deadline || !self.waited_for.load(Ordering::Relaxed) {
            return Err(Fault::Spent("no answer from the module at the deadline".into()));
        }
        self.fuel_left = self.fuel_left.checked_sub(spent).ok_or_else(out_of_fuel)?;
        self.store.set_fuel(spent).map_err(fault)
    }
}

fn out_of_fuel() -> Fault {
    Fault::Spent("the module has used up its fuel".into())
}

fn fault(error: Error) -> Fault {
    match error.as_trap_code() {
        Some(TrapCode::OutOfFuel) => out_of_fuel(),
        _ => Fault::Broken(error.to_string()),
    }
}
