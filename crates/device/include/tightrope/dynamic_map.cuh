// The dynamic map of bitsandbytes: 256 numbers from -1 (or 0) to 1, most of them near 1.
#pragma once
#include <stdint.h>

// Returns the upper end of one of the seven decades between 0 and 1.
__device__ __forceinline__ float decade_end(uint32_t decade) {
    return decade == 0   ? 1e-6f
           : decade == 1 ? 1e-5f
           : decade == 2 ? 1e-4f
           : decade == 3 ? 1e-3f
           : decade == 4 ? 1e-2f
           : decade == 5 ? 1e-1f
                         : 1.0f;
}

// Returns number `code` of the map, in increasing order, with the same roundings as on the CPU.
// There are seven decades between 0 and 1: the highest one has 2^b codes (b = 6, or 7 without a
// sign), which are the centres of equal parts of 0.1 to 1; the next has half as many, the centres
// of equal parts of 0.01 to 0.1; and so on.
template <bool SIGNED> __device__ __forceinline__ float dynamic_value(uint32_t code) {
    if (code == 255) return 1.0f;
    const int place = SIGNED ? int(code) - 127 : int(code) + 1;
    if (SIGNED ? place == 0 : code == 0) return 0.0f;
    const uint32_t rank = abs(place);
    const uint32_t log_parts = 31 - __clz(rank), parts = 1u << log_parts;
    const uint32_t part = rank - parts;
    // Like `torch.linspace`, from either end.
    const float step = (1.0f - 0.1f) / float(parts);
    const auto edge = [&](uint32_t i) {
        return i < (parts + 1) / 2 ? fmaf(step, float(i), 0.1f)
                                   : fmaf(-step, float(parts - i), 1.0f);
    };
    const float mean = (edge(part) + edge(part + 1)) * 0.5f;
    const uint32_t decade = SIGNED ? log_parts : log_parts - 1;
    const float value = decade_end(decade) * mean;
    return place < 0 ? -value : value;
}

// In each decade between 0 and 1 the ranks of the map's numbers lie along a line. Lines of lower
// decades are steeper, so that the rank at x is about the smallest value of any line at x. Where x
// can be in two decades, two lines are compared. `start` includes 2^23, so that the sum is rounded
// to a whole number.
struct RankLine {
    float slope;
    float start;

    __device__ __forceinline__ float at(float x) const { return fmaf(x, slope, start); }
};

// The map in shared memory.
template <bool SIGNED> struct DynamicMap {
    // Biased exponent of 2^-23, and number of binades from there to 1. 2^-23 is nearer to 0 than to
    // any other number of the map.
    static constexpr uint32_t LOWEST = 104, BINADES = 24;
    float value[256];
    // Midpoints between each number and the one below; -inf and inf at the ends.
    float edge[257];
    // Lines of the decades at the lower and the upper end of each binade.
    alignas(16) RankLine line[BINADES][2];

    // Fills the map, with a block of 256 threads. Ends with a barrier.
    __device__ __forceinline__ void fill() {
        const uint32_t code = threadIdx.x;
        value[code] = dynamic_value<SIGNED>(code);
        if (code < 2 * BINADES) {
            // Lower or upper end of the binade, a power of two.
            const float x = __uint_as_float((LOWEST + code / 2 + code % 2) << 23);
            uint32_t decade = 0;
            float end = 1e-6f;
            while (decade < 6 && x > end) end = decade_end(++decade);
            const uint32_t parts = 1u << (SIGNED ? decade : decade + 1);
            line[code / 2][code % 2] = {
                float(parts) / (0.9f * end), float((1u << 23) + 8 * parts / 9)};
        }
        __syncthreads();
        edge[code] = code == 0 ? -INFINITY : (value[code - 1] + value[code]) * 0.5f;
        if (code == 0) edge[256] = INFINITY;
        __syncthreads();
    }

    // Returns the code of the number nearest to x, the lower of two equally near; 0 for NaN. x is
    // from -1 to 1, or from 0 to 1 without a sign.
    __device__ __forceinline__ uint32_t nearest(float x) const {
        const float size = fmaxf(fminf(fabsf(x), 1.0f), 1.1920929e-7f);
        const RankLine* lines = line[(__float_as_uint(size) >> 23) - LOWEST];
        const float rank = fminf(lines[0].at(size), lines[1].at(size));
        const int place = __float_as_uint(rank) & 255;
        // `near` is off by one at most.
        const int near = SIGNED ? 127 + (x < 0.0f ? -place : place) : place - 1;
        const int code = near + (x > edge[near + 1]) - !(x > edge[near]);
        return x == x ? code : 0;
    }
};
