// Adafactor: the factored second moment of a matrix, and the update of one parameter.
//
// A vector, whose second moment is not factored, is a matrix of one row. Sums over a row are taken
// by the block of the row, sums over a column by runs of rows that another kernel adds up; their
// order depends on the shape alone. Bytes at least for a matrix without first moment: 24 an element
// (gradient four times, weight twice).
#include "tightrope/element.cuh"
#include "tightrope/reduce.cuh"

constexpr int THREADS = 256;
constexpr int TOTAL_THREADS = 1024;

__device__ __forceinline__ float square(float x, float scale) {
    const float g = __fmul_rn(scale, x);
    return g * g;
}

// Updates the second moment of each row. Grid: one block for each row. gradient: [rows, columns];
// row: [rows].
extern "C" __global__ void __launch_bounds__(THREADS) adafactor_rows(
    const float* __restrict__ gradient, float* __restrict__ row, float gradient_scale, float beta2,
    float blend2, float eps, uint64_t columns) {
    __shared__ float partial[THREADS / 32];
    const float* own = gradient + blockIdx.x * columns;
    float sum = 0.0f;
    for (uint64_t j = threadIdx.x; j < columns; j += THREADS) sum += square(own[j], gradient_scale);
    const float total = block_sum<THREADS / 32>(sum, partial);
    if (threadIdx.x == 0) {
        const float mean = total / float(columns) + eps;
        row[blockIdx.x] = fmaf(blend2, mean, __fmul_rn(beta2, row[blockIdx.x]));
    }
}

// Sums the squares of a run of rows in each column. Grid: columns by runs, one thread for each
// column. gradient: [rows, columns]; partial: [runs, columns].
extern "C" __global__ void __launch_bounds__(THREADS) adafactor_columns(
    const float* __restrict__ gradient, float* __restrict__ partial, float gradient_scale,
    uint64_t rows, uint64_t columns, uint64_t run) {
    const uint64_t j = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (j >= columns) return;
    const uint64_t first = blockIdx.y * run, end = min(first + run, rows);
    float sum = 0.0f;
    for (uint64_t i = first; i < end; ++i) sum += square(gradient[i * columns + j], gradient_scale);
    partial[blockIdx.y * columns + j] = sum;
}

// Updates the second moment of each column. Grid: one thread for each column. partial: [runs,
// columns]; column: [columns].
extern "C" __global__ void __launch_bounds__(THREADS) adafactor_add_columns(
    const float* __restrict__ partial, float* __restrict__ column, float beta2, float blend2,
    float eps, uint64_t rows, uint64_t columns, uint64_t runs) {
    const uint64_t j = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (j >= columns) return;
    float sum = 0.0f;
    for (uint64_t run = 0; run < runs; ++run) sum += partial[run * columns + j];
    const float mean = sum / float(rows) + eps;
    column[j] = fmaf(blend2, mean, __fmul_rn(beta2, column[j]));
}

// Updates the second moment of each element. Grid: one thread for each element. gradient, v:
// [elements].
extern "C" __global__ void __launch_bounds__(THREADS) adafactor_elements(
    const float* __restrict__ gradient, float* __restrict__ v, float gradient_scale, float beta2,
    float blend2, float eps, uint64_t elements) {
    const uint64_t i = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= elements) return;
    const float now = square(gradient[i], gradient_scale) + eps;
    v[i] = fmaf(blend2, now, __fmul_rn(beta2, v[i]));
}

// Writes the mean of the second moments of the rows. Grid: one block. row: [rows]; mean: [1].
extern "C" __global__ void __launch_bounds__(TOTAL_THREADS) adafactor_mean(
    const float* __restrict__ row, float* __restrict__ mean, uint64_t rows) {
    __shared__ float partial[TOTAL_THREADS / 32];
    float sum = 0.0f;
    for (uint64_t i = threadIdx.x; i < rows; i += TOTAL_THREADS) sum += row[i];
    const float total = block_sum<TOTAL_THREADS / 32>(sum, partial);
    if (threadIdx.x == 0) mean[0] = total / float(rows);
}

// The gradient divided by the root of its second moment. `inverse` is that of the row, 1 if the
// second moment is that of the element.
__device__ __forceinline__ float direction(float g, float scale, float inverse, float v) {
    return __fmul_rn(__fmul_rn(scale, g), __fmul_rn(inverse, __fdiv_rn(1.0f, __fsqrt_rn(v))));
}

__device__ __forceinline__ float inverse_of_row(const float* row, const float* mean) {
    return row == nullptr
        ? 1.0f : __fdiv_rn(1.0f, __fsqrt_rn(__fdiv_rn(row[blockIdx.x], mean[0])));
}

// Sums the squares of the directions of each row. Grid: one block for each row. gradient: [rows,
// columns]; row: [rows], or null; mean: [1]; v: [columns]; sums: [rows].
extern "C" __global__ void __launch_bounds__(THREADS) adafactor_sums(
    const float* __restrict__ gradient, const float* __restrict__ row,
    const float* __restrict__ mean, const float* __restrict__ v, float* __restrict__ sums,
    float gradient_scale, uint64_t columns) {
    __shared__ float partial[THREADS / 32];
    const float inverse = inverse_of_row(row, mean);
    const float* own = gradient + blockIdx.x * columns;
    float sum = 0.0f;
    for (uint64_t j = threadIdx.x; j < columns; j += THREADS) {
        const float u = direction(own[j], gradient_scale, inverse, v[j]);
        sum += u * u;
    }
    const float total = block_sum<THREADS / 32>(sum, partial);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// Writes the factor that limits the directions' root of the mean square. Grid: one block. sums:
// [rows]; limit: [1].
extern "C" __global__ void __launch_bounds__(TOTAL_THREADS) adafactor_limit(
    const float* __restrict__ sums, float* __restrict__ limit, float threshold, uint64_t rows,
    uint64_t elements) {
    __shared__ float partial[TOTAL_THREADS / 32];
    float sum = 0.0f;
    for (uint64_t i = threadIdx.x; i < rows; i += TOTAL_THREADS) sum += sums[i];
    const float total = block_sum<TOTAL_THREADS / 32>(sum, partial);
    if (threadIdx.x == 0) {
        const float size = __fdiv_rn(__fsqrt_rn(total / float(elements)), threshold);
        // NaN stays.
        limit[0] = size <= 1.0f ? 1.0f : __fdiv_rn(1.0f, size);
    }
}

// Updates the weight and, if there is one, the first moment. Grid: one block for each row. weight,
// gradient, m: [rows, columns], m or null; row: [rows], or null; mean, limit: [1]; v: [columns].
extern "C" __global__ void __launch_bounds__(THREADS) adafactor_update(
    float* __restrict__ weight, const float* __restrict__ gradient, const float* __restrict__ row,
    const float* __restrict__ mean, const float* __restrict__ v, const float* __restrict__ limit,
    float* __restrict__ m, float gradient_scale, float rate, float keep, float beta1, float blend1,
    uint64_t columns) {
    const float inverse = inverse_of_row(row, mean);
    const float factor = __fmul_rn(rate, limit[0]);
    const uint64_t first = blockIdx.x * columns;
    for (uint64_t j = threadIdx.x; j < columns; j += THREADS) {
        const uint64_t i = first + j;
        float change = __fmul_rn(factor, direction(gradient[i], gradient_scale, inverse, v[j]));
        if (m != nullptr) {
            change = fmaf(blend1, change, __fmul_rn(beta1, m[i]));
            m[i] = change;
        }
        weight[i] = __fsub_rn(__fmul_rn(weight[i], keep), change);
    }
}
