//! The architectures that kernels are assembled for, and the number of blocks that each holds at
//! once.

/// Limits of a multiprocessor, from "Technical Specifications per Compute Capability" of the CUDA
/// programming guide.
#[derive(Debug, PartialEq)]
pub(super) struct Architecture {
    /// Compute capability without its point.
    pub number: u32,
    warps: u32,
    blocks: u32,
    barriers: u32,
    /// Size of shared memory in KiB.
    shared: u32,
}

/// Barriers do not limit the number of blocks before 9.0.
const UNLIMITED: u32 = u32::MAX;

/// All architectures with different instructions.
pub(super) const ARCHITECTURES: [Architecture; 6] = [
    Architecture::new(80, 64, 32, UNLIMITED, 164),
    Architecture::new(86, 48, 16, UNLIMITED, 100),
    Architecture::new(89, 48, 24, UNLIMITED, 100),
    Architecture::new(90, 64, 32, 64, 228),
    Architecture::new(100, 64, 32, 64, 228),
    Architecture::new(120, 48, 24, 24, 100),
];

/// Size of a warp on all architectures.
const WARP: u32 = 32;
const REGISTERS: u32 = 64 * 1024;
const PARTITIONS: u32 = 4;
const REGISTER_UNIT: u32 = 256;
const SHARED_UNIT: u32 = 128;
/// Shared memory that the driver reserves for each block.
const RESERVED: u32 = 1024;

/// Resources of one block of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub threads: u32,
    pub registers: u32,
    /// Size of shared memory in bytes, static and dynamic.
    pub shared: u32,
    pub barriers: u32,
}

impl Architecture {
    const fn new(number: u32, warps: u32, blocks: u32, barriers: u32, shared: u32) -> Self {
        Self {
            number,
            warps,
            blocks,
            barriers,
            shared,
        }
    }

    /// Name in its tools.
    pub(super) fn name(&self) -> String {
        format!("sm_{}", self.number)
    }

    /// Largest shared memory of a block in bytes.
    pub(super) fn shared_per_block(&self) -> u32 {
        self.shared * 1024 - RESERVED
    }

    /// Resident warps in percent of the maximum; 0 if no block fits.
    pub(super) fn occupancy(&self, block: Block) -> u32 {
        let warps = block.threads.div_ceil(WARP);
        self.resident(block) * warps * 100 / self.warps
    }

    /// Number of resident blocks, computed as in `cuda_occupancy.h`.
    fn resident(&self, block: Block) -> u32 {
        let warps = block.threads.div_ceil(WARP).max(1);
        let per_warp = (block.registers * WARP).next_multiple_of(REGISTER_UNIT);
        // A launch is refused as if every partition had the same number of warps.
        if per_warp * warps.next_multiple_of(PARTITIONS) > REGISTERS
            || block.shared > self.shared_per_block()
        {
            return 0;
        }
        let by_registers = (REGISTERS / PARTITIONS)
            .checked_div(per_warp)
            .map_or(u32::MAX, |per_partition| per_partition * PARTITIONS / warps);
        let shared = (block.shared + RESERVED).next_multiple_of(SHARED_UNIT);
        (self.warps / warps)
            .min(self.blocks)
            .min(by_registers)
            .min(self.shared * 1024 / shared)
            .min(
                self.barriers
                    .checked_div(block.barriers)
                    .unwrap_or(u32::MAX),
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Architecture, threads, registers, bytes of shared memory, barriers; then blocks by
    /// `cuda_occupancy.h` of CUDA 13.0.
    const KNOWN: &[[u32; 6]] = &[
        [80, 256, 32, 0, 1, 8],
        [80, 256, 40, 32, 1, 6],
        [80, 128, 255, 0, 1, 2],
        [80, 1024, 64, 0, 1, 1],
        [80, 1024, 72, 0, 1, 0],
        [80, 32, 16, 0, 0, 32],
        [80, 96, 80, 4096, 1, 8],
        [80, 160, 96, 1000, 1, 4],
        [80, 128, 128, 33000, 1, 4],
        [80, 64, 24, 0, 5, 32],
        [80, 256, 128, 101376, 1, 1],
        [80, 256, 63, 166912, 2, 1],
        [86, 256, 32, 0, 1, 6],
        [86, 256, 40, 32, 1, 6],
        [86, 128, 255, 0, 1, 2],
        [86, 1024, 64, 0, 1, 1],
        [86, 1024, 72, 0, 1, 0],
        [86, 32, 16, 0, 0, 16],
        [86, 96, 80, 4096, 1, 8],
        [86, 160, 96, 1000, 1, 4],
        [86, 128, 128, 33000, 1, 3],
        [86, 64, 24, 0, 5, 16],
        [86, 256, 128, 101376, 1, 1],
        [86, 256, 63, 166912, 2, 0],
        [89, 256, 32, 0, 1, 6],
        [89, 256, 40, 32, 1, 6],
        [89, 128, 255, 0, 1, 2],
        [89, 1024, 64, 0, 1, 1],
        [89, 1024, 72, 0, 1, 0],
        [89, 32, 16, 0, 0, 24],
        [89, 96, 80, 4096, 1, 8],
        [89, 160, 96, 1000, 1, 4],
        [89, 128, 128, 33000, 1, 3],
        [89, 64, 24, 0, 5, 24],
        [89, 256, 128, 101376, 1, 1],
        [89, 256, 63, 166912, 2, 0],
        [90, 256, 32, 0, 1, 8],
        [90, 256, 40, 32, 1, 6],
        [90, 128, 255, 0, 1, 2],
        [90, 1024, 64, 0, 1, 1],
        [90, 1024, 72, 0, 1, 0],
        [90, 32, 16, 0, 0, 32],
        [90, 96, 80, 4096, 1, 8],
        [90, 160, 96, 1000, 1, 4],
        [90, 128, 128, 33000, 1, 4],
        [90, 64, 24, 0, 5, 12],
        [90, 256, 128, 101376, 1, 2],
        [90, 256, 63, 166912, 2, 1],
        [100, 256, 32, 0, 1, 8],
        [100, 256, 40, 32, 1, 6],
        [100, 128, 255, 0, 1, 2],
        [100, 1024, 64, 0, 1, 1],
        [100, 1024, 72, 0, 1, 0],
        [100, 32, 16, 0, 0, 32],
        [100, 96, 80, 4096, 1, 8],
        [100, 160, 96, 1000, 1, 4],
        [100, 128, 128, 33000, 1, 4],
        [100, 64, 24, 0, 5, 12],
        [100, 256, 128, 101376, 1, 2],
        [100, 256, 63, 166912, 2, 1],
        [120, 256, 32, 0, 1, 6],
        [120, 256, 40, 32, 1, 6],
        [120, 128, 255, 0, 1, 2],
        [120, 1024, 64, 0, 1, 1],
        [120, 1024, 72, 0, 1, 0],
        [120, 32, 16, 0, 0, 24],
        [120, 96, 80, 4096, 1, 8],
        [120, 160, 96, 1000, 1, 4],
        [120, 128, 128, 33000, 1, 3],
        [120, 64, 24, 0, 5, 4],
        [120, 256, 128, 101376, 1, 1],
        [120, 256, 63, 166912, 2, 0],
    ];

    #[test]
    fn blocks_are_those_of_the_vendor() {
        for &[number, threads, registers, shared, barriers, expected] in KNOWN {
            let architecture = ARCHITECTURES.iter().find(|a| a.number == number).unwrap();
            let block = Block {
                threads,
                registers,
                shared,
                barriers,
            };
            assert_eq!(
                architecture.resident(block),
                expected,
                "{number}: {block:?}"
            );
        }
    }

    #[test]
    fn occupancy_is_a_share_of_the_warps() {
        let block = Block {
            threads: 256,
            registers: 48,
            shared: 32,
            barriers: 1,
        };
        let percent = |index: usize| ARCHITECTURES[index].occupancy(block);
        assert_eq!((percent(0), percent(1)), (62, 83));
        let large = Block {
            shared: 100 * 1024,
            ..block
        };
        assert_eq!(ARCHITECTURES[1].occupancy(large), 0);
    }
}
