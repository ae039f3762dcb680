// AdamW with 8-bit moments. A warp reads, updates and quantises a block of 256 elements.
//
// Each lane has two runs of four elements, each with 16 bytes of weight and 16 of gradient. Bytes
// at least: 16 an element (10 read, 6 written: weight 8, gradient 4, codes 4) and 16 a block.
//
// expects: LDG.128 STG.128
#include "tightrope/adamw.cuh"
#include "tightrope/dynamic_map.cuh"
#include "tightrope/element.cuh"
#include "tightrope/reduce.cuh"

constexpr int THREADS = 256;
constexpr uint32_t BLOCK = 256;
// Number of elements of a lane, and of one of its runs.
constexpr int OWN = BLOCK / 32;
constexpr int RUN = 4;

// Place of the lane's k-th element in its block.
__device__ __forceinline__ uint32_t place(int k) {
    return k / RUN * 32 * RUN + threadIdx.x % 32 * RUN + k % RUN;
}

// Reads the lane's elements of a block of `count` elements, with zeros beyond the end.
template <typename T>
__device__ __forceinline__ void read(T* own, const T* block, uint32_t count) {
    if (count == BLOCK) {
#pragma unroll
        for (int k = 0; k < OWN; k += RUN) {
            const auto run = Vector<T, RUN>::load(block + place(k));
#pragma unroll
            for (int i = 0; i < RUN; ++i) own[k + i] = run.element[i];
        }
    } else {
#pragma unroll
        for (int k = 0; k < OWN; ++k) own[k] = place(k) < count ? block[place(k)] : T(0);
    }
}

template <typename T>
__device__ __forceinline__ void write(const T* own, T* block, uint32_t count) {
    if (count == BLOCK) {
#pragma unroll
        for (int k = 0; k < OWN; k += RUN) {
            Vector<T, RUN> run;
#pragma unroll
            for (int i = 0; i < RUN; ++i) run.element[i] = own[k + i];
            run.store(block + place(k));
        }
    } else {
#pragma unroll
        for (int k = 0; k < OWN; ++k)
            if (place(k) < count) block[place(k)] = own[k];
    }
}

// Returns the largest magnitude of a warp's elements. It is NaN if there is one, because the bits
// of NaN are larger than those of any number.
__device__ __forceinline__ float largest(const float* own) {
    uint32_t bits = 0;
#pragma unroll
    for (int k = 0; k < OWN; ++k) bits = max(bits, __float_as_uint(own[k]) & 0x7fffffffu);
    return __uint_as_float(__reduce_max_sync(ALL_LANES, bits));
}

__device__ __forceinline__ float ratio(float x, float absmax) {
    return absmax == 0.0f ? 0.0f : __fdiv_rn(x, absmax);
}

// Grid: blocks of 8 warps, which process the blocks of elements in a grid-stride loop.
template <typename Index>
__device__ __forceinline__ void update(
    float* weight, const float* gradient, uint8_t* m_codes, float* m_absmax, uint8_t* v_codes,
    float* v_absmax, const AdamWFactors& factors, Index elements) {
    __shared__ DynamicMap<true> m_map;
    __shared__ DynamicMap<false> v_map;
    m_map.fill();
    v_map.fill();
    const Index blocks = (elements + (BLOCK - 1)) / BLOCK;
    for (Index block = (Index(blockIdx.x) * THREADS + threadIdx.x) / 32; block < blocks;
         block += gridDim.x * (THREADS / 32)) {
        const Index first = block * BLOCK;
        const uint32_t count = min(elements - first, Index(BLOCK));
        float w[OWN], g[OWN], m[OWN], v[OWN];
        uint8_t m_code[OWN], v_code[OWN];
        read(w, weight + first, count);
        read(g, gradient + first, count);
        read(m_code, m_codes + first, count);
        read(v_code, v_codes + first, count);
        const float m_scale = m_absmax[block], v_scale = v_absmax[block];
#pragma unroll
        for (int k = 0; k < OWN; ++k) {
            const bool inside = place(k) < count;
            m[k] = inside ? m_map.value[m_code[k]] * m_scale : 0.0f;
            v[k] = inside ? v_map.value[v_code[k]] * v_scale : 0.0f;
            if (inside) adamw_step(factors, g[k], w[k], m[k], v[k]);
        }
        const float m_largest = largest(m), v_largest = largest(v);
#pragma unroll
        for (int k = 0; k < OWN; ++k) {
            m_code[k] = m_map.nearest(ratio(m[k], m_largest));
            v_code[k] = max(v_map.nearest(ratio(v[k], v_largest)), uint32_t(v[k] > 0.0f));
        }
        write(w, weight + first, count);
        write(m_code, m_codes + first, count);
        write(v_code, v_codes + first, count);
        // All lanes have read the old scales before one lane overwrites them.
        __syncwarp();
        if (threadIdx.x % 32 == 0) {
            m_absmax[block] = m_largest;
            v_absmax[block] = v_largest;
        }
    }
}

// weight, gradient, m_codes, v_codes: [elements]; m_absmax, v_absmax: [elements / 256, rounded up].
#define ADAMW_8BIT(INDEX, BITS)                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) adamw_8bit_update_##BITS(             \
        float* __restrict__ weight, const float* __restrict__ gradient,                            \
        uint8_t* __restrict__ m_codes, float* __restrict__ m_absmax,                               \
        uint8_t* __restrict__ v_codes, float* __restrict__ v_absmax, float gradient_scale,         \
        float keep, float blend1, float beta2, float blend2, float root, float eps, float rate,    \
        uint64_t elements) {                                                                       \
        const AdamWFactors factors = {gradient_scale, keep, blend1, beta2, blend2, root, eps,      \
                                      rate};                                                       \
        update<INDEX>(                                                                             \
            weight, gradient, m_codes, m_absmax, v_codes, v_absmax, factors, INDEX(elements));     \
    }
ADAMW_8BIT(uint32_t, u32)
ADAMW_8BIT(uint64_t, u64)
