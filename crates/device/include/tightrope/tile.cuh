// Tiles in shared memory, which asynchronous copies fill, and products of 16 rows by one warp,
// which use tensor cores for bf16 and fused multiply-adds for f32.
//
// Sums are in f32, in the layout of `mma.m16n8k16`: for every 8 columns, lane `l` holds row `l / 4`
// (elements 0 and 1) and row `l / 4 + 8` (elements 2 and 3), in columns `2 (l % 4)` and the next.
#pragma once
#include "tightrope/element.cuh"

// A tile has rows of D elements. The 16-byte chunks of a row are permuted, so that the same chunk
// of 8 consecutive rows lies in different banks.
template <typename T, int D> struct Tile {
    static constexpr int CHUNK = WIDTH<T>;
    static constexpr int CHUNKS = D / CHUNK;
    T* start;

    __device__ __forceinline__ T* chunk(int row, int chunk) const {
        const int turn = CHUNKS >= 8 ? row % 8 : row / (8 / CHUNKS) % CHUNKS;
        return start + row * D + (chunk ^ turn) * CHUNK;
    }
    __device__ __forceinline__ T* at(int row, int column) const {
        return chunk(row, column / CHUNK) + column % CHUNK;
    }
};

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return uint32_t(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes, or writes zeros without touching the source if it is not `there`.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(there ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void copy_async_4(void* shared, const void* global, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(there ? 4 : 0)
                 : "memory");
}

// Closes a group of copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the last OPEN groups are in flight.
template <int OPEN> __device__ __forceinline__ void await_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(OPEN) : "memory");
}

// Fills ROWS rows of a tile with `rows` rows of `dim` elements, and zeros beyond them. `at(row)` is
// the distance of a row from `from`, which can be read.
template <int ROWS, int THREADS, typename T, int D, typename At>
__device__ __forceinline__ void fill_rows(
    Tile<T, D> tile, const T* from, int rows, int dim, At at) {
    constexpr int CHUNK = Tile<T, D>::CHUNK, CHUNKS = Tile<T, D>::CHUNKS;
    if (dim % CHUNK == 0) {
#pragma unroll 2
        for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
            const int row = i / CHUNKS, chunk = i % CHUNKS;
            const bool there = row < rows && chunk * CHUNK < dim;
            const T* source = there ? from + at(row) + chunk * CHUNK : from;
            copy_async_16(tile.chunk(row, chunk), source, there);
        }
    } else {
#pragma unroll 1
        for (int i = threadIdx.x; i < ROWS * D; i += THREADS) {
            const int row = i / D, column = i % D;
            const bool there = row < rows && column < dim;
            *tile.at(row, column) =
                there ? from[at(row) + column] : from_float<T>(0.0f);
        }
    }
}

// The same for rows that are `stride` apart.
template <int ROWS, int THREADS, typename T, int D>
__device__ __forceinline__ void fill(
    Tile<T, D> tile, const T* from, uint32_t stride, int rows, int dim) {
    fill_rows<ROWS, THREADS>(
        tile, from, rows, dim, [&](int row) { return uint64_t(row) * stride; });
}

__device__ __forceinline__ void load_matrices(uint32_t (&matrix)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
                 : "r"(shared_address(row)));
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&matrix)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
                 : "r"(shared_address(row)));
}

// Computes sum += a · b for matrices of 16 × 16 and 16 × 8.
__device__ __forceinline__ void multiply_matrices(
    __nv_bfloat16, float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Computes sum += a·bᵀ for the 16 rows of `a` from `row` on and 8·N rows of `b`. Beyond `dim`, both
// are zero.
template <int N, typename T, int D>
__device__ __forceinline__ void add_product_transposed(
    float (&sum)[N][4], Tile<T, D> a, int row, Tile<T, D> b, int dim) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(T) == 4) {
        const int group = lane / 4, pair = lane % 4 * 2;
#pragma unroll 1
        for (int chunk = 0; 4 * chunk < dim; ++chunk) {
            const auto upper = Vector<float, 4>::load(a.chunk(row + group, chunk));
            const auto lower = Vector<float, 4>::load(a.chunk(row + group + 8, chunk));
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const auto left = Vector<float, 4>::load(b.chunk(8 * n + pair, chunk));
                const auto right = Vector<float, 4>::load(b.chunk(8 * n + pair + 1, chunk));
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    sum[n][0] = fmaf(upper.element[k], left.element[k], sum[n][0]);
                    sum[n][1] = fmaf(upper.element[k], right.element[k], sum[n][1]);
                    sum[n][2] = fmaf(lower.element[k], left.element[k], sum[n][2]);
                    sum[n][3] = fmaf(lower.element[k], right.element[k], sum[n][3]);
                }
            }
        }
    } else {
        static_assert(N % 2 == 0);
#pragma unroll 2
        for (int k = 0; 16 * k < dim; ++k) {
            uint32_t left[4];
            load_matrices(left, a.chunk(row + lane % 16, 2 * k + lane / 16));
#pragma unroll
            for (int n = 0; n < N; n += 2) {
                uint32_t right[4];
                load_matrices(
                    right, b.chunk(8 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
                multiply_matrices(T(), sum[n], left, right[0], right[1]);
                multiply_matrices(T(), sum[n + 1], left, right[2], right[3]);
            }
        }
    }
}

// Number of f32 elements of shared memory that a warp needs for `add_product` of 8·K columns.
template <typename T, int K> constexpr int STAGE = sizeof(T) == 4 ? 16 * (8 * K + 4) : 0;

// Computes sum += a·b for 16 × 8·K sums `a`, rounded to T, the 8·K rows of `b`, and 8·N of its
// columns from `column` on. `stage` has STAGE<T, K> elements, which belong to the warp alone.
template <int N, int K, typename T, int D>
__device__ __forceinline__ void add_product(
    float (&sum)[N][4], const float (&a)[K][4], Tile<T, D> b, int column, float* stage) {
    const int lane = threadIdx.x % 32;
    if constexpr (sizeof(T) == 4) {
        constexpr int STRIDE = 8 * K + 4;
        const int group = lane / 4, pair = lane % 4 * 2;
        float* upper_row = stage + group * STRIDE;
        float* lower_row = upper_row + 8 * STRIDE;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            Vector<float, 2>{a[k][0], a[k][1]}.store(upper_row + 8 * k + pair);
            Vector<float, 2>{a[k][2], a[k][3]}.store(lower_row + 8 * k + pair);
        }
        __syncwarp();
#pragma unroll 1
        for (int k = 0; k < 8 * K; ++k) {
            const float upper = upper_row[k], lower = lower_row[k];
#pragma unroll
            for (int n = 0; n < N; ++n) {
                const auto right = Vector<float, 2>::load(b.at(k, column + 8 * n + pair));
                sum[n][0] = fmaf(upper, right.element[0], sum[n][0]);
                sum[n][1] = fmaf(upper, right.element[1], sum[n][1]);
                sum[n][2] = fmaf(lower, right.element[0], sum[n][2]);
                sum[n][3] = fmaf(lower, right.element[1], sum[n][3]);
            }
        }
        __syncwarp();
    } else {
        static_assert(N % 2 == 0 && K % 2 == 0);
#pragma unroll
        for (int k = 0; k < K; k += 2) {
            const uint32_t left[4] = {
                packed(T(), a[k][0], a[k][1]), packed(T(), a[k][2], a[k][3]),
                packed(T(), a[k + 1][0], a[k + 1][1]), packed(T(), a[k + 1][2], a[k + 1][3])};
#pragma unroll
            for (int n = 0; n < N; n += 2) {
                uint32_t right[4];
                load_matrices_transposed(
                    right, b.chunk(8 * k + lane % 16, column / 8 + n + lane / 16));
                multiply_matrices(T(), sum[n], left, right[0], right[1]);
                multiply_matrices(T(), sum[n + 1], left, right[2], right[3]);
            }
        }
    }
}

// Rounds 16 rows of sums, of which `rows` exist, and writes them to columns `column..` of `dim`.
// They pass through the 16 rows of `tile` from `row` on, which by then belong to the warp alone.
template <int N, typename T, int D>
__device__ __forceinline__ void store_rows(
    const float (&sum)[N][4], Tile<T, D> tile, int row, T* to, uint32_t stride, int rows,
    int column, int dim) {
    constexpr int CHUNK = Tile<T, D>::CHUNK, CHUNKS = 8 * N / CHUNK;
    const int lane = threadIdx.x % 32;
    const int group = row + lane / 4, pair = lane % 4 * 2;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < N; ++n) {
        Vector<T, 2> upper, lower;
        upper.set(0, sum[n][0]), upper.set(1, sum[n][1]);
        lower.set(0, sum[n][2]), lower.set(1, sum[n][3]);
        upper.store(tile.at(group, 8 * n + pair));
        lower.store(tile.at(group + 8, 8 * n + pair));
    }
    __syncwarp();
    if (dim % CHUNK == 0) {
#pragma unroll 2
        for (int i = lane; i < 16 * CHUNKS; i += 32) {
            const int r = i / CHUNKS, c = i % CHUNKS;
            if (r < rows && column + c * CHUNK < dim)
                *reinterpret_cast<uint4*>(to + uint64_t(r) * stride + column + c * CHUNK) =
                    *reinterpret_cast<const uint4*>(tile.chunk(row + r, c));
        }
    } else {
#pragma unroll 1
        for (int i = lane; i < 16 * 8 * N; i += 32) {
            const int r = i / (8 * N), c = i % (8 * N);
            if (r < rows && column + c < dim)
                to[uint64_t(r) * stride + column + c] = *tile.at(row + r, c);
        }
    }
}
