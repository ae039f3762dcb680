//! The least time of a launch on a named GPU: the roofline of its counters.
use crate::Counters;

/// Public figures of a GPU: dense rates, boost clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// Name.
    pub name: &'static str,
    /// Name in the driver.
    pub driver_name: &'static str,
    /// Bandwidth of device memory in bytes per second.
    pub memory_bytes_per_second: f64,
    /// Rate of bf16 tensor cores with f32 accumulation, in operations per second (a multiply-add is
    /// two).
    pub tensor_operations_per_second: f64,
    /// Rate of f32 outside of tensor cores, in operations per second.
    pub float_operations_per_second: f64,
    /// Number of streaming multiprocessors.
    pub multiprocessors: u32,
    /// Boost clock in Hz.
    pub clock: f64,
}

/// GPUs with the figures of their vendor's data sheets and architecture papers.
pub const GPUS: [Gpu; 6] = [
    Gpu::new(
        "A100 80GB SXM",
        "NVIDIA A100-SXM4-80GB",
        2039e9,
        312e12,
        19.5e12,
        108,
        1.410e9,
    ),
    Gpu::new(
        "H100 SXM",
        "NVIDIA H100 80GB HBM3",
        3350e9,
        989.4e12,
        66.9e12,
        132,
        1.830e9,
    ),
    Gpu::new(
        "H200",
        "NVIDIA H200",
        4800e9,
        989.4e12,
        66.9e12,
        132,
        1.830e9,
    ),
    Gpu::new("L4", "NVIDIA L4", 300e9, 121e12, 30.3e12, 58, 2.040e9),
    Gpu::new(
        "RTX 3090",
        "NVIDIA GeForce RTX 3090",
        936.2e9,
        71.0e12,
        35.6e12,
        82,
        1.695e9,
    ),
    Gpu::new(
        "RTX 4090",
        "NVIDIA GeForce RTX 4090",
        1008e9,
        165.2e12,
        82.6e12,
        128,
        2.520e9,
    ),
];

/// Number of thread instructions that a multiprocessor issues per clock: four schedulers with 32
/// lanes each.
const LANES_PER_CLOCK: f64 = 128.0;
/// Number of passes over its shared memory that a multiprocessor makes per clock.
const PASSES_PER_CLOCK: f64 = 1.0;

/// Resource that bounds a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the PTX manual")]
pub enum Bound {
    Memory,
    Tensor,
    Float,
    Issue,
    SharedMemory,
}

/// Least times of a launch by resource; the longest bounds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Seconds by device memory, tensor cores, f32 units, instruction issue, shared memory.
    pub seconds: [(Bound, f64); 5],
}

impl Gpu {
    const fn new(
        name: &'static str,
        driver_name: &'static str,
        memory_bytes_per_second: f64,
        tensor_operations_per_second: f64,
        float_operations_per_second: f64,
        multiprocessors: u32,
        clock: f64,
    ) -> Self {
        Self {
            name,
            driver_name,
            memory_bytes_per_second,
            tensor_operations_per_second,
            float_operations_per_second,
            multiprocessors,
            clock,
        }
    }

    /// Seconds that any implementation needs for moving bytes and multiplying on tensor cores at
    /// the same time.
    pub fn least_seconds(&self, bytes: f64, multiply_adds: f64) -> f64 {
        let tensor = 2.0 * multiply_adds / self.tensor_operations_per_second;
        tensor.max(bytes / self.memory_bytes_per_second)
    }

    /// A lower bound from counts, and no prediction: it assumes that no cache holds any sector,
    /// that each PTX instruction is one of the processor's, and that all multiprocessors are busy.
    pub fn estimate(&self, counters: &Counters) -> Estimate {
        let clocks = f64::from(self.multiprocessors) * self.clock;
        Estimate {
            seconds: [
                (
                    Bound::Memory,
                    counters.global_bytes_moved() as f64 / self.memory_bytes_per_second,
                ),
                (
                    Bound::Tensor,
                    2.0 * counters.tensor_multiply_adds as f64 / self.tensor_operations_per_second,
                ),
                (
                    Bound::Float,
                    counters.float_operations as f64 / self.float_operations_per_second,
                ),
                (
                    Bound::Issue,
                    counters.warp_instructions as f64 * 32.0 / LANES_PER_CLOCK / clocks,
                ),
                (
                    Bound::SharedMemory,
                    counters.shared_passes as f64 / PASSES_PER_CLOCK / clocks,
                ),
            ],
        }
    }
}

impl Estimate {
    /// Resource that takes longest, with its seconds.
    pub fn bound(&self) -> (Bound, f64) {
        self.seconds
            .into_iter()
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or((Bound::Memory, 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_resource_bounds() {
        let copy = Counters {
            global_load_sectors: 1 << 25,
            warp_instructions: 1 << 10,
            ..Counters::default()
        };
        let (bound, seconds) = GPUS[0].estimate(&copy).bound();
        assert_eq!(bound, Bound::Memory);
        assert!((seconds - (1u64 << 30) as f64 / 2039e9).abs() <= 1e-12);
        let product = Counters {
            tensor_multiply_adds: 1 << 40,
            global_load_sectors: 1 << 20,
            ..Counters::default()
        };
        let (bound, seconds) = GPUS[1].estimate(&product).bound();
        assert_eq!(bound, Bound::Tensor);
        assert!((seconds - 2f64.powi(41) / 989.4e12).abs() <= 1e-9);
        assert!((GPUS[0].least_seconds(2039e9, 1.0) - 1.0).abs() <= 1e-12);
        assert!((GPUS[0].least_seconds(1.0, 156e12) - 1.0).abs() <= 1e-12);
    }
}
