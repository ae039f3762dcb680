// Cross-entropy on the logits of a chunk of rows, and the gather and scatter of a chunk's rows.
//
// A block processes a row of logits: it reads the row once for its largest logit and the sum of
// exponentials, and once more, in place, for the gradient. Bytes at least, for a row of
// `vocabulary` logits and gradients of s bytes: 4 · vocabulary for the loss; (8 + s) · vocabulary
// for the gradient, or (4 + s) · vocabulary if the row is still in the cache when it is read again.
// This is so with a small vocabulary; with 128,256 classes the rows of all running blocks take
// several times the cache of any GPU. Gather and scatter: 2 · s · hidden. Arithmetic in f32.
//
// expects: LDG.128
// expects: STG.128 in linear_cross_entropy_gradient_f32
// expects: STG.64 in linear_cross_entropy_gradient_bf16
// expects: STG.128 in linear_cross_entropy_gather_* linear_cross_entropy_scatter_*
#include "tightrope/element.cuh"
#include "tightrope/reduce.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
// Number of classes that a thread takes at a time. It is the same for every type of the gradient,
// because the loss must not depend on this type. The classes form runs of 16 bytes of logits, so
// that the accesses of neighbouring threads leave no gaps.
constexpr int N = 8;
constexpr int RUN = WIDTH<float>;
// Number of classes that a block takes at a time.
constexpr uint32_t TILE = THREADS * N;

// Place of the thread's k-th class in its tile.
__device__ __forceinline__ uint32_t place(int k) {
    return (k / RUN * THREADS + threadIdx.x) * RUN + k % RUN;
}

template <bool CAPPED> __device__ __forceinline__ float capped(float z, float softcap) {
    return CAPPED ? softcap * tanhf(z / softcap) : z;
}

// Returns the thread's logits of a tile, −∞ beyond the last class.
template <bool CAPPED>
__device__ __forceinline__ Floats<N> logits_at(
    const float* row, uint32_t tile, uint32_t vocabulary, float softcap) {
    Floats<N> result;
#pragma unroll
    for (int run = 0; run < N; run += RUN) {
        const uint32_t first = tile + place(run);
        if (first + RUN <= vocabulary) {
            result.chunk[run / RUN] = Vector<float, RUN>::load(row + first);
        } else {
#pragma unroll
            for (int k = 0; k < RUN; ++k)
                result[run + k] = first + k < vocabulary ? row[first + k] : -INFINITY;
        }
    }
#pragma unroll
    for (int k = 0; k < N; ++k)
        if (tile + place(k) < vocabulary) result[k] = capped<CAPPED>(result[k], softcap);
    return result;
}

// The exponentials are those of `l − m`, where `m` is the largest logit.
struct Exponentials {
    float largest;
    // Exponential of the target, and sum of the exponentials of all other classes. The gradient of
    // the target is −others / total, which keeps its digits where p − 1 would cancel.
    float own, others;

    __device__ __forceinline__ float total() const { return own + others; }
};

template <bool CAPPED>
__device__ __forceinline__ Exponentials exponentials(
    const float* row, uint32_t target, uint32_t vocabulary, float softcap, float& at_target) {
    __shared__ float partial[WARPS];
    at_target = capped<CAPPED>(row[target], softcap);
    // The start is finite, so that the difference of two largest logits is never NaN.
    float largest = -3.402823466e38f, sum = 0.0f;
    for (uint32_t tile = 0; tile < vocabulary; tile += TILE) {
        auto logit = logits_at<CAPPED>(row, tile, vocabulary, softcap);
        float new_largest = largest;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            if (tile + place(k) == target) logit[k] = -INFINITY;
            new_largest = fmaxf(new_largest, logit[k]);
        }
        float more = 0.0f;
#pragma unroll
        for (int k = 0; k < N; ++k) more += expf(logit[k] - new_largest);
        sum = sum * expf(largest - new_largest) + more;
        largest = new_largest;
    }
    // A NaN is never the largest logit, but it reaches the sum.
    const float all = block_max<WARPS>(fmaxf(largest, at_target), partial);
    const float others = block_sum<WARPS>(sum * expf(largest - all), partial);
    return {all, expf(at_target - all), others};
}

__device__ __forceinline__ float loss_of(const Exponentials& e, float at_target) {
    const float distance = e.largest - at_target;
    // If the target has the largest logit, `own` is 1, and a small loss keeps all its digits.
    return distance == 0.0f ? log1pf(e.others) : distance + logf(e.total());
}

template <bool CAPPED>
__device__ __forceinline__ void loss(
    const float* logits, const uint64_t* rows, const int32_t* targets, float softcap, float* losses,
    uint32_t vocabulary, uint64_t stride) {
    const uint64_t token = rows[blockIdx.x];
    const float* row = logits + blockIdx.x * stride;
    float at_target;
    const auto e = exponentials<CAPPED>(row, targets[token], vocabulary, softcap, at_target);
    if (threadIdx.x == 0) losses[token] = loss_of(e, at_target);
}

// Replaces the row by its gradients times the token's weight; the first gradient is at the place of
// the first logit. Gradients that are narrower than logits overwrite only logits that were read
// before the barrier.
template <bool CAPPED, typename T>
__device__ __forceinline__ void gradient(
    float* logits, const uint64_t* rows, const int32_t* targets, const float* weights, float softcap,
    float* losses, uint32_t vocabulary, uint64_t stride) {
    const uint64_t token = rows[blockIdx.x];
    const uint32_t target = targets[token];
    float* row = logits + blockIdx.x * stride;
    T* result = reinterpret_cast<T*>(row);
    float at_target;
    const auto e = exponentials<CAPPED>(row, target, vocabulary, softcap, at_target);
    if (threadIdx.x == 0) losses[token] = loss_of(e, at_target);
    const float scale = weights[token] / e.total();
    const float own = -e.others * scale;
    for (uint32_t tile = 0; tile < vocabulary; tile += TILE) {
        auto change = logits_at<CAPPED>(row, tile, vocabulary, softcap);
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float p = expf(change[k] - e.largest) * scale;
            const float t = change[k] / softcap;
            const float d = tile + place(k) == target ? own : p;
            change[k] = CAPPED ? d * (1.0f - t * t) : d;
        }
        __syncthreads();
#pragma unroll
        for (int run = 0; run < N; run += RUN) {
            const uint32_t first = tile + place(run);
            if (first + RUN <= vocabulary) {
                store(Floats<RUN>{change.chunk[run / RUN]}, result + first);
            } else {
#pragma unroll
                for (int k = 0; k < RUN; ++k)
                    if (first + k < vocabulary) result[first + k] = from_float<T>(change[run + k]);
            }
        }
    }
}

// Grid: one block for each row of the chunk. logits: [rows, stride]; `stride` is a multiple of 8,
// and the first `vocabulary` of each row are read. rows: [rows], tokens; targets, weights, losses:
// [tokens]. Gradients overwrite the logits, in rows of `stride` · 4 bytes. A softcap of 0 means
// none.
extern "C" __global__ void __launch_bounds__(THREADS) linear_cross_entropy_loss(
    const float* __restrict__ logits, const uint64_t* __restrict__ rows,
    const int32_t* __restrict__ targets, float softcap, float* __restrict__ losses,
    uint64_t vocabulary, uint64_t stride) {
    if (softcap == 0.0f)
        loss<false>(logits, rows, targets, softcap, losses, vocabulary, stride);
    else
        loss<true>(logits, rows, targets, softcap, losses, vocabulary, stride);
}
#define GRADIENT(T, TYPE)                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS) linear_cross_entropy_gradient_##TYPE(    \
        float* logits, const uint64_t* __restrict__ rows, const int32_t* __restrict__ targets,     \
        const float* __restrict__ weights, float softcap, float* __restrict__ losses,              \
        uint64_t vocabulary, uint64_t stride) {                                                    \
        if (softcap == 0.0f)                                                                       \
            gradient<false, T>(                                                                    \
                logits, rows, targets, weights, softcap, losses, vocabulary, stride);              \
        else                                                                                       \
            gradient<true, T>(logits, rows, targets, weights, softcap, losses, vocabulary, stride);\
    }
GRADIENT(float, f32)
GRADIENT(__nv_bfloat16, bf16)

template <typename T, typename Index, int WIDE>
__device__ __forceinline__ void copy_row(const T* from, T* to, Index hidden) {
    for (Index i = threadIdx.x * WIDE; i < hidden; i += THREADS * WIDE)
        Vector<T, WIDE>::load(from + i).store(to + i);
}

template <typename T, typename Index>
__device__ __forceinline__ void copy_row(const T* from, T* to, Index hidden) {
    if (hidden % WIDTH<T> == 0)
        copy_row<T, Index, WIDTH<T>>(from, to, hidden);
    else
        copy_row<T, Index, 1>(from, to, hidden);
}

// Grid: one block for each row of the chunk. all: [tokens, hidden]; chunk: [rows, hidden].
#define COPY(T, TYPE, INDEX, BITS)                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                          \
        linear_cross_entropy_gather_##TYPE##_##BITS(                                               \
            const T* __restrict__ all, const uint64_t* __restrict__ rows, T* __restrict__ chunk,   \
            uint64_t hidden) {                                                                     \
        const INDEX token = rows[blockIdx.x], width = hidden;                                      \
        copy_row<T, INDEX>(all + token * width, chunk + INDEX(blockIdx.x) * width, width);         \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS)                                          \
        linear_cross_entropy_scatter_##TYPE##_##BITS(                                              \
            const T* __restrict__ chunk, const uint64_t* __restrict__ rows, T* __restrict__ all,   \
            uint64_t hidden) {                                                                     \
        const INDEX token = rows[blockIdx.x], width = hidden;                                      \
        copy_row<T, INDEX>(chunk + INDEX(blockIdx.x) * width, all + token * width, width);         \
    }
FOR_FLOATS_AND_WIDTHS(COPY)
