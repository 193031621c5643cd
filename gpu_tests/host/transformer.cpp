#include "transformer.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "numbers.h"

namespace gt {
namespace {

using Rows = std::vector<std::vector<double>>;

double weight(std::uint32_t salt, float scale, std::uint32_t i) {
    const std::uint32_t high = bits(scale * entropy(salt, i)) & 0xFFFF0000u;
    float value;
    std::memcpy(&value, &high, sizeof value);
    return value;
}

double to_bf16(double value) {
    const std::uint32_t u = bits(static_cast<float>(value));
    return decode(Number::kBf16, (u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

/// W * x for each row of x, the rows of W shared out among the processors; each weight is made once.
Rows linear(const Rows &x, Part part, std::uint32_t layer, std::uint32_t outputs) {
    const auto inputs = static_cast<std::uint32_t>(x[0].size());
    const std::uint32_t salt = weight_salt(part, layer);
    const float scale = weight_scale(part, inputs);
    Rows y(x.size(), std::vector<double>(outputs));
    const auto some = [&](std::uint32_t from, std::uint32_t to) {
        std::vector<double> row(inputs);
        for (std::uint32_t o = from; o < to; ++o) {
            for (std::uint32_t i = 0; i < inputs; ++i) row[i] = weight(salt, scale, o * inputs + i);
            for (std::size_t t = 0; t < x.size(); ++t) {
                double sum[4] = {};
                std::uint32_t i = 0;
                for (; i + 4 <= inputs; i += 4) {
                    for (std::uint32_t j = 0; j < 4; ++j) sum[j] += row[i + j] * x[t][i + j];
                }
                for (; i < inputs; ++i) sum[0] += row[i] * x[t][i];
                y[t][o] = sum[0] + sum[1] + sum[2] + sum[3];
            }
        }
    };
    const std::uint64_t work = std::uint64_t{inputs} * outputs;
    const std::uint32_t parts =
        work < (1u << 18) ? 1 : std::max(1u, std::min(32u, std::thread::hardware_concurrency()));
    std::vector<std::thread> threads;
    for (std::uint32_t p = 1; p < parts; ++p) {
        threads.emplace_back(some, outputs / parts * p, p + 1 == parts ? outputs : outputs / parts * (p + 1));
    }
    some(0, parts == 1 ? outputs : outputs / parts);
    for (std::thread &thread : threads) thread.join();
    return y;
}

Rows normalised(const Rows &x, Part part, std::uint32_t layer) {
    Rows y = x;
    for (std::vector<double> &row : y) {
        double squares = 0.0;
        for (double value : row) squares += value * value;
        const double scale = 1.0 / std::sqrt(squares / static_cast<double>(row.size()) + 1e-5);
        for (std::uint32_t i = 0; i < row.size(); ++i) {
            row[i] *= scale * (1.0 + weight(weight_salt(part, layer), weight_scale(part, 1), i));
        }
    }
    return y;
}

void add(Rows &x, const Rows &y) {
    for (std::size_t t = 0; t < x.size(); ++t) {
        for (std::size_t i = 0; i < x[t].size(); ++i) x[t][i] += y[t][i];
    }
}

void turn(double *head, std::uint32_t size, const float *angles) {
    for (std::uint32_t j = 0; j < size / 2; ++j) {
        const double c = angles[2 * j], s = angles[2 * j + 1], a = head[j], b = head[j + size / 2];
        head[j] = a * c - b * s;
        head[j + size / 2] = b * c + a * s;
    }
}

/// Every head of every token over the positions up to its own.
Rows attention(const ModelShape &m, const Rows &qkv, const std::vector<double> &keys,
               const std::vector<double> &values) {
    Rows out(qkv.size(), std::vector<double>(m.q_width(), 0.0));
    std::vector<double> score;
    for (std::size_t t = 0; t < qkv.size(); ++t) {
        for (std::uint32_t head = 0; head < m.heads; ++head) {
            const std::uint32_t kv = head / (m.heads / m.kv_heads);
            const double *q = qkv[t].data() + head * m.head_size;
            const auto at = [&](std::size_t p) { return p * m.kv_width() + kv * m.head_size; };
            score.assign(t + 1, 0.0);
            for (std::size_t p = 0; p <= t; ++p) {
                for (std::uint32_t j = 0; j < m.head_size; ++j) score[p] += q[j] * keys[at(p) + j];
                score[p] /= std::sqrt(static_cast<double>(m.head_size));
            }
            const double top = *std::max_element(score.begin(), score.end());
            double sum = 0.0;
            for (double &s : score) sum += s = std::exp(s - top);
            for (std::size_t p = 0; p <= t; ++p) {
                for (std::uint32_t j = 0; j < m.head_size; ++j) {
                    out[t][head * m.head_size + j] += score[p] / sum * values[at(p) + j];
                }
            }
        }
    }
    return out;
}

}  // namespace

std::uint32_t weight_salt(Part part, std::uint32_t layer) {
    return 1000 + 16 * layer + static_cast<std::uint32_t>(part);
}

float weight_scale(Part part, std::uint32_t inputs) {
    if (part == Part::kEmbedding) return 1.0f;
    if (part == Part::kAttentionGain || part == Part::kMlpGain || part == Part::kGain) return 0.25f;
    return std::sqrt(3.0f / static_cast<float>(inputs));  // keeps the size of what goes through
}

std::vector<float> rotary_angles(const ModelShape &m) {
    std::vector<float> out;
    for (std::uint32_t p = 0; p < m.context; ++p) {
        for (std::uint32_t j = 0; j < m.head_size / 2; ++j) {
            const double angle = p * std::pow(10000.0, -2.0 * j / m.head_size);
            out.push_back(static_cast<float>(std::cos(angle)));
            out.push_back(static_cast<float>(std::sin(angle)));
        }
    }
    return out;
}

Expected expected(const ModelShape &m, const std::vector<std::uint32_t> &tokens) {
    const std::vector<float> angles = rotary_angles(m);
    Expected out;
    Rows x;
    for (std::uint32_t token : tokens) {
        std::vector<double> row(m.width);
        for (std::uint32_t i = 0; i < m.width; ++i) {
            row[i] = weight(weight_salt(Part::kEmbedding, 0), weight_scale(Part::kEmbedding, 1), token * m.width + i);
        }
        x.push_back(row);
    }
    for (std::uint32_t layer = 0; layer < m.layers; ++layer) {
        Rows qkv = linear(normalised(x, Part::kAttentionGain, layer), Part::kQkv, layer, m.qkv_width());
        std::vector<double> keys, values;
        for (std::size_t t = 0; t < qkv.size(); ++t) {
            for (std::uint32_t head = 0; head < m.heads + m.kv_heads; ++head) {
                turn(qkv[t].data() + head * m.head_size, m.head_size, angles.data() + t * m.head_size);
            }
            for (std::uint32_t i = 0; i < m.kv_width(); ++i) {
                keys.push_back(to_bf16(qkv[t][m.q_width() + i]));
                values.push_back(to_bf16(qkv[t][m.q_width() + m.kv_width() + i]));
            }
        }
        add(x, linear(attention(m, qkv, keys, values), Part::kOut, layer, m.width));
        Rows both = linear(normalised(x, Part::kMlpGain, layer), Part::kGateUp, layer, 2 * m.inner);
        for (std::vector<double> &row : both) {
            for (std::uint32_t i = 0; i < m.inner; ++i) row[i] = row[i] / (1.0 + std::exp(-row[i])) * row[m.inner + i];
            row.resize(m.inner);
        }
        add(x, linear(both, Part::kDown, layer, m.width));
        out.keys.push_back(keys);
        out.values.push_back(values);
    }
    out.logits = linear(normalised(x, Part::kGain, 0), Part::kHead, 0, m.vocabulary);
    return out;
}

}  // namespace gt
