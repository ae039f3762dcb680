// Attention: what a query sees, where its keys lie, and how products become scores.
#pragma once
#include "tightrope/reduce.cuh"
#include "tightrope/tile.cuh"

constexpr float LOG2E = 1.44269504f;
constexpr float LN2 = 0.69314718f;

// Returns 2ˣ within 2 units in the last place, or 0 if the result is subnormal.
__device__ __forceinline__ float power_of_two(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// A prefix is the keys of an earlier range. `reader` is the first range that reads the keys of this
// one or, in a range with a prefix, the next that reads the same prefix; 0 if there is none.
struct Range {
    uint32_t query_start, query_len, key_start, key_len, prefix_start, prefix_len, reader;
};

// Returns the same pointer, but hides that from the compiler: what is read through it again takes no
// registers in between.
template <typename T> __device__ __forceinline__ T* opaque(T* pointer) {
    asm volatile("" : "+l"(pointer));
    return pointer;
}

// Converts products to scores in units of log 2, and applies the softcap.
struct Scoring {
    float scale, cap;

    __device__ __forceinline__ Scoring(float scale, float softcap)
        : scale(softcap > 0.0f ? 2.0f * LOG2E * scale / softcap : scale * LOG2E),
          cap(softcap * LOG2E) {}

    // Sets `slope` to the derivative, divided by the scale of scores.
    __device__ __forceinline__ float operator()(float product, float& slope) const {
        slope = 1.0f;
        if (cap > 0.0f) {
            // tanh(x) = 1 − 2 / (1 + e^2x); the error is at most 2⁻²³.
            const float power = power_of_two(product * scale);
            const float tanh = 1.0f - __fdividef(2.0f, 1.0f + power);
            slope = 1.0f - tanh * tanh;
            return cap * tanh;
        }
        return product * scale;
    }
};

// The rows of the keys of a range: those of the prefix, which may lie further back, and its own.
struct Keys {
    // Number of keys of the prefix, and of all.
    int prefix, count;
    // Number of rows between the prefix and the range's own rows.
    int back;

    __device__ __forceinline__ Keys(const Range& range)
        : prefix(range.prefix_len), count(range.prefix_len + range.key_len),
          back(range.key_start - range.prefix_start - range.prefix_len) {}

    // Fills ROWS rows of a tile with the keys from `key` on, and zeros beyond the last. `from` is the
    // row that key 0 has if the prefix ends where the range begins.
    template <int ROWS, int THREADS, typename T, int D>
    __device__ __forceinline__ void fill(
        Tile<T, D> tile, const T* from, uint32_t stride, int key, int dim) const {
        const int border = prefix - key;
        from += uint64_t(key) * stride;
        fill_rows<ROWS, THREADS>(tile, from, count - key, dim, [&](int row) {
            if (row < border) row -= back;
            return int64_t(row) * int(stride);
        });
    }
};

// Decides which keys of its range a query sees. Positions are counted from the first key.
struct Sight {
    int ahead, window;

    __device__ __forceinline__ Sight(const Range& range, uint32_t window)
        : ahead(range.prefix_len + range.key_len - range.query_len), window(min(window, 0x7fffffffu)) {}

    __device__ __forceinline__ int last(int query) const { return query + ahead; }
    __device__ __forceinline__ int first(int query) const {
        return max(query + ahead - window + 1, 0);
    }
    __device__ __forceinline__ bool sees(int query, int key) const {
        return key <= last(query) && key >= first(query);
    }
    // Returns true if some query of `from..=to` sees some key of `low..=high`.
    __device__ __forceinline__ bool any(int from, int to, int low, int high) const {
        return from <= to && low <= last(to) && high >= first(from);
    }
    // Returns true if every query of `from..=to` sees every key of `low..=high`.
    __device__ __forceinline__ bool all(int from, int to, int low, int high) const {
        return high <= last(from) && low >= first(to);
    }
};

// Sum and maximum over the four lanes that share a row.
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

template <int N> __device__ __forceinline__ void clear(float (&sum)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[n][i] = 0.0f;
}
