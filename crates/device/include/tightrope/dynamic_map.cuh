// The dynamic map of bitsandbytes: 256 numbers from -1 (or 0) to 1, most of them near 1.
#pragma once
#include <stdint.h>

// Number `code` of the map, in increasing order, with the roundings that the CPU has. Between 0 and 1
// there are seven decades: the highest 2^b of the codes (b = 6, 7 without a sign) are the centres of
// equal parts of 0.1 to 1, half as many those of 0.01 to 0.1, and so on.
template <bool SIGNED> __device__ __forceinline__ float dynamic_value(uint32_t code) {
    if (code == 255) return 1.0f;
    const int place = SIGNED ? int(code) - 127 : int(code) + 1;
    if (SIGNED ? place == 0 : code == 0) return 0.0f;
    const uint32_t rank = abs(place);
    const uint32_t log_parts = 31 - __clz(rank), parts = 1u << log_parts;
    const uint32_t part = rank - parts;
    // As `torch.linspace` has it, from either end.
    const float step = (1.0f - 0.1f) / float(parts);
    const auto edge = [&](uint32_t i) {
        return i < (parts + 1) / 2 ? fmaf(step, float(i), 0.1f)
                                   : fmaf(-step, float(parts - i), 1.0f);
    };
    const float mean = (edge(part) + edge(part + 1)) * 0.5f;
    const uint32_t decade = SIGNED ? log_parts : log_parts - 1;
    const float scale = decade == 0   ? 1e-6f
                        : decade == 1 ? 1e-5f
                        : decade == 2 ? 1e-4f
                        : decade == 3 ? 1e-3f
                        : decade == 4 ? 1e-2f
                        : decade == 5 ? 1e-1f
                                      : 1.0f;
    const float value = scale * mean;
    return place < 0 ? -value : value;
}

// The map in shared memory.
struct DynamicMap {
    float value[256];
    // Midpoints of neighbours as a search tree: below node k are 2k and 2k + 1.
    float midpoint[256];

    // By a block of 256 threads; ends with a barrier.
    template <bool SIGNED> __device__ __forceinline__ void fill() {
        value[threadIdx.x] = dynamic_value<SIGNED>(threadIdx.x);
        __syncthreads();
        if (threadIdx.x > 0) {
            const uint32_t level = 31 - __clz(threadIdx.x);
            const uint32_t place = threadIdx.x - (1u << level);
            const uint32_t below = ((2 * place + 1) << (7 - level)) - 1;
            midpoint[threadIdx.x] = (value[below] + value[below + 1]) * 0.5f;
        }
        __syncthreads();
    }

    // The code of the number next to x, of two equally near ones the lower; 0 for NaN.
    __device__ __forceinline__ uint32_t nearest(float x) const {
        uint32_t node = 1;
#pragma unroll
        for (int level = 0; level < 8; ++level) node = 2 * node + (x > midpoint[node]);
        return node - 256;
    }
};
