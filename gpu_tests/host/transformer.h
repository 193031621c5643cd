// A small decoder transformer with synthetic weights, and what it must compute, in fp64.
#pragma once

#include <cstdint>
#include <vector>

namespace gt {

/// Llama's architecture: RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases.
struct ModelShape {
    std::uint32_t width, layers, heads, kv_heads, head_size, inner, vocabulary;
    std::uint32_t context;  // positions that the cache holds

    std::uint32_t q_width() const { return heads * head_size; }
    std::uint32_t kv_width() const { return kv_heads * head_size; }
    std::uint32_t qkv_width() const { return q_width() + 2 * kv_width(); }
    /// Weights that one decoded token must read, without the one row of the embedding.
    std::uint64_t weights() const {
        const std::uint64_t layer = std::uint64_t{qkv_width()} * width + std::uint64_t{width} * q_width() +
                                    3 * std::uint64_t{inner} * width;
        return layer * layers + std::uint64_t{vocabulary} * width;
    }
};

enum class Part : std::uint32_t { kEmbedding, kAttentionGain, kQkv, kOut, kMlpGain, kGateUp, kDown, kGain, kHead };

/// The stream of a matrix's entropy, and the scale that it is multiplied with before it becomes bf16.
std::uint32_t weight_salt(Part part, std::uint32_t layer);
float weight_scale(Part part, std::uint32_t inputs);

/// cos and sin, position by position, of the angles of each pair of a head.
std::vector<float> rotary_angles(const ModelShape &shape);

/// What one pass over a whole sequence gives.
struct Expected {
    std::vector<std::vector<double>> logits;             // one row a token
    std::vector<std::vector<double>> keys, values;       // one a layer: token by token, rounded to bf16
};
Expected expected(const ModelShape &shape, const std::vector<std::uint32_t> &tokens);

}  // namespace gt
