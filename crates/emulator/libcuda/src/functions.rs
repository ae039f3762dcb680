//! Modules, kernels and launches.
use crate::driver::{Driver, Function, Handle, driver};
use crate::pointers::{parameters, put, text};
use crate::status::{
    Code, INVALID_HANDLE, INVALID_VALUE, NOT_FOUND, NOT_SUPPORTED, Status, api, refuse, report,
};
use std::ffi::{c_char, c_int, c_uint, c_void};
use tightrope_emulator::{
    BlockSelection, LaunchConfig, Module,
    report::{Entry, Source},
};

const MOST_DYNAMIC_SHARED: c_int = 8;
/// Largest dynamic shared memory without opting in, and largest of all.
const DEFAULT_SHARED: u32 = 48 * 1024;
const OPT_IN_SHARED: u32 = 163 * 1024;

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// `TIGHTROPE_EMULATOR_SEED` permutes schedules; `TIGHTROPE_EMULATOR_BLOCKS=first+last` executes
/// only that many blocks at each end of every grid.
fn configure(grid: [u32; 3], block: [u32; 3], dynamic_shared: u32) -> LaunchConfig {
    let mut config = LaunchConfig {
        dynamic_shared,
        ..LaunchConfig::new(grid, block)
    };
    config.checks.counters = Entry::is_wanted();
    config.seed = variable("TIGHTROPE_EMULATOR_SEED");
    let ends = variable::<String>("TIGHTROPE_EMULATOR_BLOCKS");
    let ends = ends.as_deref().and_then(|text| text.split_once('+'));
    if let Some((Ok(first), Ok(last))) = ends.map(|(a, b)| (a.parse(), b.parse())) {
        config.blocks = BlockSelection::Ends { first, last };
    }
    config
}

impl Driver {
    fn function(&self, handle: Handle) -> Result<(&Module, &Function), Code> {
        let function = self.functions.get(&(handle as u64)).ok_or(INVALID_HANDLE)?;
        let module = self.modules.get(&function.module).ok_or(INVALID_HANDLE)?;
        Ok((module, function))
    }
}

fn launch(
    function: Handle,
    config: LaunchConfig,
    stream: Handle,
    array: *mut *mut c_void,
) -> Status {
    let mut driver = driver();
    let order = driver.issue(stream)?;
    let (module, function) = driver.function(function)?;
    if config.dynamic_shared > function.most_dynamic_shared {
        eprintln!(
            "emulator: launch of `{}`: {} bytes of dynamic shared memory, {} without opting in",
            function.name, config.dynamic_shared, function.most_dynamic_shared
        );
        return Err(INVALID_VALUE);
    }
    let layout = module
        .parameters(&function.name)
        .map_err(|error| refuse(&error))?;
    let parameters = parameters(array, layout)?;
    let report_of = module
        .launch(&function.name, &driver.memory, &order, &parameters, &config)
        .map_err(|error| refuse(&error))?;
    let entry = Entry {
        name: function.name.clone(),
        source: Source::Executed,
        sizes: format!("grid {:?} block {:?}", config.grid, config.block),
        counters: report_of.counters,
    };
    entry.append();
    match report_of
        .findings
        .iter()
        .map(report)
        .collect::<Vec<_>>()
        .first()
    {
        Some(code) => Err(*code),
        None => Ok(()),
    }
}

/// Number of blocks per multiprocessor by threads and shared memory; registers are unknown.
fn occupancy(out: *mut c_int, function: Handle, threads: c_int, dynamic_shared: usize) -> Status {
    let driver = driver();
    let (module, function) = driver.function(function)?;
    let (static_shared, _) = module
        .limits(&function.name)
        .map_err(|error| refuse(&error))?;
    let threads = usize::try_from(threads)
        .ok()
        .filter(|n| *n > 0)
        .ok_or(INVALID_VALUE)?;
    let shared = static_shared as usize + dynamic_shared + 1024;
    let blocks = (2048 / threads.next_multiple_of(32))
        .min(164 * 1024 / shared)
        .min(32);
    put(out, blocks as c_int)
}

api! {
    fn cuModuleLoadData(out: *mut Handle, image: *const c_char) {
        let source = text(image)?;
        let mut driver = driver();
        let module = Module::load(&source, &mut driver.memory).map_err(|error| refuse(&error))?;
        let handle = driver.handle();
        driver.modules.insert(handle, module);
        put(out, handle as Handle)
    }
    fn cuModuleLoad(out: *mut Handle, path: *const c_char) {
        let path = text(path)?;
        let source = std::fs::read_to_string(&path).map_err(|_| NOT_FOUND)?;
        let mut driver = driver();
        let module = Module::load(&source, &mut driver.memory).map_err(|error| refuse(&error))?;
        let handle = driver.handle();
        driver.modules.insert(handle, module);
        put(out, handle as Handle)
    }
    fn cuModuleUnload(module: Handle) {
        let mut driver = driver();
        driver.functions.retain(|_, function| function.module != module as u64);
        driver.modules.remove(&(module as u64)).map(|_| ()).ok_or(INVALID_HANDLE)
    }
    fn cuModuleGetFunction(out: *mut Handle, module: Handle, name: *const c_char) {
        let name = text(name)?;
        let mut driver = driver();
        let loaded = driver.modules.get(&(module as u64)).ok_or(INVALID_HANDLE)?;
        if !loaded.kernel_names().any(|kernel| kernel == name) {
            return Err(NOT_FOUND);
        }
        let handle = driver.handle();
        let function = Function { module: module as u64, name, most_dynamic_shared: DEFAULT_SHARED };
        driver.functions.insert(handle, function);
        put(out, handle as Handle)
    }
    fn cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: Handle, name: *const c_char) {
        let name = text(name)?;
        let driver = driver();
        let loaded = driver.modules.get(&(module as u64)).ok_or(INVALID_HANDLE)?;
        let (at, length) = loaded.variable(&name).ok_or(NOT_FOUND)?;
        if !address.is_null() {
            put(address, at)?;
        }
        if bytes.is_null() { Ok(()) } else { put(bytes, length as usize) }
    }
    fn cuFuncGetAttribute(out: *mut c_int, attribute: c_int, function: Handle) {
        let driver = driver();
        let (module, function) = driver.function(function)?;
        let (shared, threads) = module.limits(&function.name).map_err(|error| refuse(&error))?;
        put(out, match attribute {
            0 => threads.unwrap_or(1024) as c_int,
            1 => shared as c_int,
            MOST_DYNAMIC_SHARED => function.most_dynamic_shared as c_int,
            _ => return Err(NOT_SUPPORTED),
        })
    }
    fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) {
        let mut driver = driver();
        let function = driver.functions.get_mut(&(function as u64)).ok_or(INVALID_HANDLE)?;
        if attribute == MOST_DYNAMIC_SHARED {
            let bytes = u32::try_from(value).map_err(|_| INVALID_VALUE)?;
            if bytes > OPT_IN_SHARED {
                return Err(INVALID_VALUE);
            }
            function.most_dynamic_shared = bytes;
        }
        Ok(())
    }
    fn cuFuncSetCacheConfig(_function: Handle, _config: c_int) {
        Ok(())
    }
    fn cuLaunchKernel(
        function: Handle,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        dynamic_shared: c_uint,
        stream: Handle,
        array: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) {
        if !extra.is_null() {
            return Err(NOT_SUPPORTED);
        }
        let config = configure([grid_x, grid_y, grid_z], [block_x, block_y, block_z], dynamic_shared);
        launch(function, config, stream, array)
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(out: *mut c_int, function: Handle, threads: c_int, dynamic_shared: usize) {
        occupancy(out, function, threads, dynamic_shared)
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        out: *mut c_int, function: Handle, threads: c_int, dynamic_shared: usize, _flags: c_uint,
    ) {
        occupancy(out, function, threads, dynamic_shared)
    }
}
