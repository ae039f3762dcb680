//! A launch: its configuration, the distribution of blocks over threads, and its report.
use super::block::{Random, Runner};
use super::release::ReleaseTable;
use super::warp::{Placement, Warp};
use crate::EmulatorError;
use crate::counters::Counters;
use crate::decode::Kernel;
use crate::finding::Finding;
use crate::memory::{DeviceMemory, Order};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Checks and counts of a launch. Bounds, alignment, registers, barriers and waits are always
/// checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Checks races, and dependencies between streams.
    pub races: bool,
    /// Checks reads of device memory that was never written. Shared and local memory is always
    /// checked.
    pub uninitialised: bool,
    /// Counts sectors and bank conflicts.
    pub counters: bool,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            races: true,
            uninitialised: true,
            counters: true,
        }
    }
}

/// Selects the blocks of the grid that are executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockSelection {
    /// All blocks.
    All,
    /// Only some blocks at each end, in the order of their numbers: this shows whether the last
    /// elements of a huge tensor are reached.
    Ends {
        /// Number of blocks at the beginning.
        first: u64,
        /// Number of blocks at the end.
        last: u64,
    },
}

/// Configuration of a launch.
#[derive(Clone, Debug)]
pub struct LaunchConfig {
    /// Number of blocks in x, y, z.
    pub grid: [u32; 3],
    /// Number of threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Size of dynamic shared memory in bytes.
    pub dynamic_shared: u32,
    /// Checks and counts.
    pub checks: Checks,
    /// Blocks to execute.
    pub blocks: BlockSelection,
    /// Number of worker threads; `None`: as many as the machine has.
    pub threads: Option<usize>,
    /// Permutes the order of blocks and warps; `None`: in order, with long turns.
    pub seed: Option<u64>,
    /// Number of instructions of one warp after which the block is aborted.
    pub instruction_limit: u64,
    /// Number of blocks with findings after which no further block is started.
    pub most_findings: usize,
}

impl LaunchConfig {
    /// A configuration with all blocks of `grid` and all checks.
    pub fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Self {
            grid,
            block,
            dynamic_shared: 0,
            checks: Checks::default(),
            blocks: BlockSelection::All,
            threads: None,
            seed: None,
            instruction_limit: 1 << 32,
            most_findings: 8,
        }
    }
}

/// Report of a launch.
#[derive(Clone, Debug, Default)]
pub struct LaunchReport {
    /// Counts over all blocks.
    pub counters: Counters,
    /// Findings by block, at most one per block, because a block stops at its first.
    pub findings: Vec<Finding>,
}

/// State that the blocks of a launch share.
pub(super) struct Launch<'a> {
    pub kernel: &'a Kernel,
    pub memory: &'a DeviceMemory,
    pub order: &'a Order,
    pub parameters: &'a [u8],
    pub config: &'a LaunchConfig,
    pub releases: ReleaseTable,
}

/// Largest shared memory of a block on the supported hardware.
const MOST_SHARED: u64 = 227 * 1024;

/// Executes the kernel; returns `Err` if a driver would refuse the launch.
pub(crate) fn launch(
    kernel: &Kernel,
    memory: &DeviceMemory,
    order: &Order,
    parameters: &[u8],
    config: &LaunchConfig,
) -> Result<LaunchReport, EmulatorError> {
    let refuse = |message: String| {
        Err(EmulatorError::InvalidLaunch {
            kernel: kernel.name.clone(),
            message,
        })
    };
    let threads = config.block.iter().map(|n| u64::from(*n)).product::<u64>();
    let most = u64::from(kernel.max_threads.unwrap_or(1024).min(1024));
    if threads == 0 || threads > most || config.block[2] > 64 {
        return refuse(format!(
            "{threads} threads per block {:?}, 1 to {most} allowed",
            config.block
        ));
    }
    let [x, y, z] = config.grid;
    if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65535 || z > 65535 {
        return refuse(format!("grid {:?}", config.grid));
    }
    let total_shared = kernel.dynamic_shared + u64::from(config.dynamic_shared);
    if total_shared > MOST_SHARED {
        return refuse(format!(
            "{total_shared} bytes of shared memory, {MOST_SHARED} allowed"
        ));
    }
    if parameters.len() != kernel.parameter_bytes {
        let (expected, got) = (kernel.parameter_bytes, parameters.len());
        return Err(EmulatorError::ParameterBytes {
            kernel: kernel.name.clone(),
            expected,
            got,
        });
    }
    let launch = Launch {
        kernel,
        memory,
        order,
        parameters,
        config,
        releases: ReleaseTable::default(),
    };
    let place = Placement {
        block: [0; 3],
        grid_shape: config.grid,
        block_shape: config.block,
        dynamic_shared: config.dynamic_shared,
        total_shared: total_shared as u32,
    };
    Ok(launch.run(place))
}

impl Launch<'_> {
    fn run(&self, place: Placement) -> LaunchReport {
        let total = place
            .grid_shape
            .iter()
            .map(|n| u64::from(*n))
            .product::<u64>();
        let (first, last) = match self.config.blocks {
            BlockSelection::All => (total, 0),
            BlockSelection::Ends { first, last } => {
                let first = first.min(total);
                (first, last.min(total - first))
            }
        };
        let count = first + last;
        let nth = |i: u64| if i < first { i } else { total - count + i };
        // A stride without common factor with the count makes a permutation.
        let mut random = Random(self.config.seed.unwrap_or(0));
        let (mut stride, start) = match self.config.seed {
            None => (1, 0),
            Some(_) => (1 + random.below(count), random.below(count)),
        };
        while common_factor(stride, count) != 1 {
            stride += 1;
        }
        let permuted = |i: u64| {
            nth(
                ((u128::from(i) * u128::from(stride) + u128::from(start)) % u128::from(count))
                    as u64,
            )
        };
        let machine = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self
            .config
            .threads
            .unwrap_or(machine)
            .max(1)
            .min(count as usize);
        let (next, failed) = (AtomicU64::new(0), AtomicUsize::new(0));
        let report = Mutex::new(LaunchReport::default());
        let work = || {
            let warps = place.block_shape.iter().product::<u32>().div_ceil(32);
            let mut warps: Vec<_> = (0..warps)
                .map(|n| Warp::new(self.kernel, n as usize))
                .collect();
            let mut runner = Runner::new(self, place);
            let mut findings = Vec::new();
            while failed.load(Relaxed) < self.config.most_findings {
                let i = next.fetch_add(1, Relaxed);
                if i >= count {
                    break;
                }
                if let Err(finding) = runner.block(permuted(i), &mut warps) {
                    failed.fetch_add(1, Relaxed);
                    findings.push(*finding);
                }
            }
            let mut report = report.lock().unwrap_or_else(|e| e.into_inner());
            report.counters.add(&runner.counters);
            report.findings.append(&mut findings);
        };
        if workers == 1 {
            work();
        } else {
            std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
        }
        let mut report = report.into_inner().unwrap_or_else(|e| e.into_inner());
        report.findings.sort_by_key(|finding| match &finding.place {
            crate::finding::Place::Kernel {
                block: [x, y, z], ..
            } => [*z, *y, *x],
            crate::finding::Place::Host(_) => [0; 3],
        });
        report
    }
}

fn common_factor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_factor(b, a % b) }
}
