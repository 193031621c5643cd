// Local inference: a decoder transformer reads a prompt and writes on, token by token, as fast as its memory allows.
#include <algorithm>
#include <cmath>

#include "../gemm.h"
#include "../roofline.h"
#include "../transformer.h"

namespace {

using namespace gt;

// Small enough to be computed in fp64 under emulation; odd in all that may be.
constexpr ModelShape kTiny{128, 2, 4, 2, 32, 312, 499, 64};
// Two layers and the vocabulary of a model of 7 to 8 billion parameters: 1.1 GB of weights.
constexpr ModelShape kLarge{4096, 2, 32, 8, 128, 14336, 32000, 320};
constexpr std::uint32_t kPromptSalt = 77;
/// fp32 against fp64, relative to the root mean square of a row of logits. Where a key or value falls on the other side
/// of a step of bf16, the logits move by some 1e-4.
constexpr double kLogitBound = 2e-3;

class Model {
  public:
    Model(Context &context, MatrixData &data, Handle module, const ModelShape &shape)
        : context_(context), backend_(context.backend), m_(shape),
          counter_(backend_, 1, 0), tokens_(backend_, m_.context + 1, 3) {
        const auto kernel = [&](const char *name) { return backend_.kernel(module, name); };
        embed_ = kernel("gt_embed"), norm_ = kernel("gt_rms_norm"), one_ = kernel("gt_linear_one");
        many_ = kernel("gt_linear_many"), rope_ = kernel("gt_rope"), attention_ = kernel("gt_attention");
        swiglu_ = kernel("gt_swiglu"), pick_ = kernel("gt_pick");
        context.phase("make weights");
        embedding_ = weights(data, Part::kEmbedding, 0, m_.vocabulary, m_.width, 1);
        for (std::uint32_t l = 0; l < m_.layers; ++l) {
            Layer layer;
            layer.attention_gain = weights(data, Part::kAttentionGain, l, 1, m_.width, 1);
            layer.qkv = weights(data, Part::kQkv, l, m_.qkv_width(), m_.width, m_.width);
            layer.out = weights(data, Part::kOut, l, m_.width, m_.q_width(), m_.q_width());
            layer.mlp_gain = weights(data, Part::kMlpGain, l, 1, m_.width, 1);
            layer.gate_up = weights(data, Part::kGateUp, l, 2 * m_.inner, m_.width, m_.width);
            layer.down = weights(data, Part::kDown, l, m_.width, m_.inner, m_.inner);
            const std::size_t words = std::size_t{m_.context} * m_.kv_width() / 2;
            layer.keys = std::make_unique<Guarded>(backend_, words, 4);
            layer.values = std::make_unique<Guarded>(backend_, words, 8);
            layers_.push_back(std::move(layer));
        }
        gain_ = weights(data, Part::kGain, 0, 1, m_.width, 1);
        head_ = weights(data, Part::kHead, 0, m_.vocabulary, m_.width, m_.width);
        const std::vector<float> angles = rotary_angles(m_);
        angles_ = alloc(angles.size());
        backend_.write(angles_, angles.data(), angles.size() * 4);
        x_ = alloc(std::size_t{m_.context} * m_.width);
        normed_ = alloc(std::size_t{m_.context} * m_.width);
        qkv_ = alloc(std::size_t{m_.context} * m_.qkv_width());
        attended_ = alloc(std::size_t{m_.context} * m_.q_width());
        both_ = alloc(std::size_t{m_.context} * 2 * m_.inner);
        inner_ = alloc(std::size_t{m_.context} * m_.inner);
        queue_ = backend_.queue();
        first_ = backend_.event(), last_ = backend_.event();
        counter_.fill([](std::uint32_t) { return 0u; });
    }
    ~Model() {
        try {
            for (Handle buffer : buffers_) backend_.free(buffer);
            backend_.free_event(first_);
            backend_.free_event(last_);
            backend_.free_queue(queue_);
        } catch (const ApiFailure &) {  // what broke the test has been reported
        }
    }
    Model(const Model &) = delete;
    Model &operator=(const Model &) = delete;

    /// Read a prompt of `prompt` tokens, write `steps` more, and compare all of it with fp64.
    void check(const std::string &name, std::uint32_t prompt, std::uint32_t steps) {
        context_.phase(("compute " + name).c_str());
        start(prompt, steps);
        forward(0, prompt, 0);
        for (std::uint32_t s = 1; s < steps; ++s) forward(prompt + s - 1, 1, s);
        finish();
        context_.phase(("verify " + name).c_str());
        const std::vector<std::uint32_t> tokens = sequence(name, prompt, steps);
        if (!context_.first_failure().empty()) return;
        const std::uint32_t used = prompt + steps - 1;  // the last token that was picked was not read
        const Expected wanted = expected(m_, {tokens.begin(), tokens.begin() + used});
        std::uint64_t wrong = 0, unlike = 0;
        double worst = 0.0;
        const std::uint64_t canaries = logits_->fetch();
        for (std::uint32_t s = 0; s < steps; ++s) {
            const std::vector<double> &row = wanted.logits[prompt - 1 + s];
            double squares = 0.0;
            for (double value : row) squares += value * value;
            const double bound = kLogitBound * std::sqrt(squares / m_.vocabulary);
            for (std::uint32_t i = 0; i < m_.vocabulary; ++i) {
                const double got = decode(Number::kFp32, logits_->payload()[s * m_.vocabulary + i]);
                const double error = std::fabs(got - row[i]) / bound;
                worst = std::max(worst, std::isfinite(error) ? error : INFINITY);
                wrong += !(error <= 1.0);
            }
            // Two logits may change places only if the bound allows it.
            const double best = *std::max_element(row.begin(), row.end());
            unlike += !(best - row[tokens[prompt + s]] <= 2 * bound);
        }
        char detail[80];
        std::snprintf(detail, sizeof detail, "largest error %.2g of the bound", worst);
        context_.check(name + "_logits", std::uint64_t{steps} * m_.vocabulary, wrong, detail);
        context_.check(name + "_logits_canaries", 2 * kCanaryWords, canaries);
        context_.check(name + "_greedy_tokens", steps, unlike);
        cache(name, wanted, used);
        counted(name);
    }

    /// The rates of reading a prompt and of writing on.
    void time(std::uint32_t prompt, std::uint32_t steps, double seconds) {
        start(prompt, steps);
        SeriesOptions options;
        options.warm_up = 1;
        options.min_reps = 5;
        options.min_seconds = std::min(0.2, seconds / 4);
        options.max_seconds = seconds / 3;
        const Series reading = timed(context_, options, [&](std::size_t) {
            return in_queue([&] { forward(0, prompt, 0); });
        });
        context_.metric("prefill_rate", "token/s", "higher", rates(prompt, reading.device), reading.wall_ratio);
        const auto write = [&] {
            for (std::uint32_t s = 1; s < steps; ++s) forward(prompt + s - 1, 1, s);
        };
        write();
        finish();
        const std::vector<std::uint32_t> once = sequence("timed", prompt, steps);
        options.before = [&] { start(prompt, steps, &once[prompt]); };
        const Series writing = timed(context_, options, [&](std::size_t) { return in_queue(write); });
        context_.phase("verify again");
        context_.check("repeats_same_tokens", writing.device.size(), sequence("again", prompt, steps) != once);
        counted("timed");
        const Roof memory = memory_roof(context_);
        Roof roof;
        roof.value = memory.value / (2.0 * static_cast<double>(m_.weights()));
        roof.at_clock = memory.at_clock / (2.0 * static_cast<double>(m_.weights()));
        roof.source = memory.source + "/bytes of weights";
        context_.metric("decode_rate", "token/s", "higher", rates(steps - 1, writing.device), writing.wall_ratio, roof);
    }

  private:
    struct Layer {
        Handle attention_gain, qkv, out, mlp_gain, gate_up, down;
        std::unique_ptr<Guarded> keys, values;
    };

    Handle alloc(std::size_t words) {
        buffers_.push_back(backend_.alloc(words * 4));
        return buffers_.back();
    }

    Handle weights(MatrixData &data, Part part, std::uint32_t layer, std::uint32_t rows, std::uint32_t columns,
                   std::uint32_t inputs) {
        const std::size_t words = (std::size_t{rows} * columns + 1) / 2;
        const Handle buffer = alloc(words);
        data.fill(buffer, 0, words, weight_salt(part, layer), static_cast<std::uint32_t>(Number::kBf16),
                  weight_scale(part, inputs));
        return buffer;
    }

    /// The prompt is in place, and everything that shall be written is poison. `next`: the token after the prompt, if
    /// that is already known.
    void start(std::uint32_t prompt, std::uint32_t steps, const std::uint32_t *next = nullptr) {
        const auto word = [&](std::uint32_t i) {
            return i < prompt            ? mix(i ^ kPromptSalt) % m_.vocabulary
                   : i == prompt && next ? *next
                                         : poison(i) | 0x80000000u;
        };
        tokens_.fill(word);
        if (!logits_ || logits_->words() != std::size_t{steps} * m_.vocabulary) {
            logits_ = std::make_unique<Guarded>(backend_, std::size_t{steps} * m_.vocabulary, 0);
        }
        logits_->poison_all();
        if (next) return;  // the cache of the prompt is still wanted
        for (Layer &layer : layers_) layer.keys->poison_all(), layer.values->poison_all();
    }

    void put(Handle kernel, std::size_t items, std::vector<Arg> args) {
        args.push_back(Arg::mem(counter_.buffer()));
        args.push_back(Arg::u32(counter_.first()));
        ++launches_;
        backend_.enqueue(queue_, kernel, items, 256, args);
    }

    void norm(Handle gain, std::uint32_t count) {
        put(norm_, std::size_t{count} * 256,
            {Arg::u32(count * m_.width), Arg::mem(normed_), Arg::mem(x_), Arg::mem(gain), Arg::u32(m_.width)});
    }

    void linear(Handle y, std::uint32_t y0, Handle x, std::uint32_t x0, Handle w, std::uint32_t count,
                std::uint32_t inputs, std::uint32_t outputs, bool add) {
        if (count == 1) {
            put(one_, std::size_t{(outputs + 7) / 8} * 256,
                {Arg::u32(outputs), Arg::mem(y), Arg::u32(y0), Arg::mem(x), Arg::u32(x0), Arg::mem(w),
                 Arg::u32(inputs), Arg::u32(add)});
        } else {
            put(many_, std::size_t{(count + 63) / 64} * ((outputs + 63) / 64) * 256,
                {Arg::u32(count * outputs), Arg::mem(y), Arg::mem(x), Arg::mem(w), Arg::u32(count), Arg::u32(inputs),
                 Arg::u32(outputs), Arg::u32(add)});
        }
    }

    /// Enqueue one pass over `count` tokens from position `pos`; the logits of the last become row `row`, and the best
    /// of them the token that follows.
    void forward(std::uint32_t pos, std::uint32_t count, std::uint32_t row) {
        const std::uint32_t kv_first = 2;  // elements of bf16 in a word of the guarded arrays
        put(embed_, std::size_t{count} * m_.width,
            {Arg::u32(count * m_.width), Arg::mem(x_), Arg::mem(embedding_), Arg::mem(tokens_.buffer()),
             Arg::u32(tokens_.first()), Arg::u32(m_.width), Arg::u32(m_.vocabulary), Arg::u32(pos)});
        for (Layer &layer : layers_) {
            const Arg keys = Arg::mem(layer.keys->buffer()), keys0 = Arg::u32(layer.keys->first() * kv_first);
            const Arg values = Arg::mem(layer.values->buffer()), values0 = Arg::u32(layer.values->first() * kv_first);
            const Arg heads = Arg::u32(m_.heads), kv_heads = Arg::u32(m_.kv_heads), size = Arg::u32(m_.head_size);
            norm(layer.attention_gain, count);
            linear(qkv_, 0, normed_, 0, layer.qkv, count, m_.width, m_.qkv_width(), false);
            put(rope_, std::size_t{count} * m_.qkv_width() / 2,
                {Arg::u32(count * m_.qkv_width() / 2), Arg::mem(qkv_), keys, keys0, values, values0, Arg::mem(angles_),
                 heads, kv_heads, size, Arg::u32(pos)});
            put(attention_, std::size_t{count} * m_.heads * 256,
                {Arg::u32(count * m_.q_width()), Arg::mem(attended_), Arg::mem(qkv_), keys, keys0, values, values0,
                 heads, kv_heads, size, Arg::u32(pos)});
            linear(x_, 0, attended_, 0, layer.out, count, m_.q_width(), m_.width, true);
            norm(layer.mlp_gain, count);
            linear(both_, 0, normed_, 0, layer.gate_up, count, m_.width, 2 * m_.inner, false);
            put(swiglu_, std::size_t{count} * m_.inner,
                {Arg::u32(count * m_.inner), Arg::mem(inner_), Arg::mem(both_), Arg::u32(m_.inner)});
            linear(x_, 0, inner_, 0, layer.down, count, m_.inner, m_.width, true);
        }
        norm(gain_, count);
        const std::uint32_t logits0 = logits_->first() + row * m_.vocabulary;
        linear(logits_->buffer(), logits0, normed_, (count - 1) * m_.width, head_, 1, m_.width, m_.vocabulary, false);
        put(pick_, 256,
            {Arg::u32(m_.vocabulary), Arg::mem(tokens_.buffer()), Arg::u32(tokens_.first()),
             Arg::mem(logits_->buffer()), Arg::u32(logits0), Arg::u32(pos + count)});
    }

    void finish() { backend_.finish(queue_); }

    template <class F>
    Time in_queue(F act) {
        const double before = monotonic_seconds();
        backend_.record(first_, queue_);
        act();
        backend_.record(last_, queue_);
        finish();
        const double wall = monotonic_seconds() - before;
        return {backend_.between(first_, last_), wall};
    }

    /// The tokens as they lie on the device, the prompt untouched and nothing written beyond the end.
    std::vector<std::uint32_t> sequence(const std::string &name, std::uint32_t prompt, std::uint32_t steps) {
        std::uint64_t bad = tokens_.fetch();
        std::vector<std::uint32_t> out(tokens_.payload(), tokens_.payload() + tokens_.words());
        for (std::uint32_t i = 0; i < out.size(); ++i) {
            if (i < prompt) bad += out[i] != mix(i ^ kPromptSalt) % m_.vocabulary;
            else if (i < prompt + steps) bad += out[i] >= m_.vocabulary;
            else bad += out[i] != (poison(i) | 0x80000000u);
        }
        context_.check(name + "_tokens_in_place", out.size(), bad);
        out.resize(prompt + steps);
        return out;
    }

    /// Keys and values are the nearest bf16, or its neighbour, and none lies beyond the last position.
    void cache(const std::string &name, const Expected &wanted, std::uint32_t used) {
        std::uint64_t bad = 0, checked = 0;
        const auto compare = [&](Guarded &got, const std::vector<double> &want) {
            bad += got.fetch();
            for (std::uint32_t i = 0; i < got.words() * 2; ++i, ++checked) {
                const std::uint32_t word = got.payload()[i / 2];
                if (i >= used * m_.kv_width()) {
                    bad += word != poison(i / 2);
                    continue;
                }
                const double value = decode(Number::kBf16, word >> (i % 2 * 16) & 0xFFFFu);
                bad += !(std::fabs(value - want[i]) <= std::fabs(want[i]) / 64 + 2e-3);
            }
        };
        for (std::uint32_t l = 0; l < m_.layers; ++l) {
            compare(*layers_[l].keys, wanted.keys[l]);
            compare(*layers_[l].values, wanted.values[l]);
        }
        context_.check(name + "_cache", checked, bad);
    }

    void counted(const std::string &name) {
        const std::uint32_t launches = static_cast<std::uint32_t>(launches_);
        const Guarded::Bad bad = counter_.verify([&](std::uint32_t) { return launches; });
        context_.check(name + "_every_launch_ran", launches, bad.payload + bad.canaries);
    }

    Context &context_;
    Backend &backend_;
    ModelShape m_;
    Guarded counter_, tokens_;
    std::unique_ptr<Guarded> logits_;
    std::vector<Layer> layers_;
    std::vector<Handle> buffers_;
    Handle embed_, norm_, one_, many_, rope_, attention_, swiglu_, pick_;
    Handle embedding_, gain_, head_, angles_, x_, normed_, qkv_, attended_, both_, inner_;
    Handle queue_ = nullptr, first_ = nullptr, last_ = nullptr;
    std::uint64_t launches_ = 0;
};

void inference(Context &context) {
    const DeviceInfo device = context.open_device();
    MatrixData data(context);
    const Handle module = context.module("inference");
    const double budget = context.options.budget;
    const bool large = context.kind() == "gpu" && device.mem_bytes >= 8 * kLarge.weights();
    {
        Model tiny(context, data, module, kTiny);
        tiny.check("tiny", 17, 9);
        if (context.first_failure().empty() && !large) tiny.time(17, 9, 0.6 * budget);
    }
    if (context.first_failure().empty() && large) {
        Model model(context, data, module, kLarge);
        model.check("large", 5, 3);
        if (context.first_failure().empty()) model.time(256, 33, 0.6 * budget);
    }
    data.check();
}

GT_TEST("inference", inference);

}  // namespace
