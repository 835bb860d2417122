// What the bindings of all native operators share: the kernels to choose from, checks, and how work is spread.

#pragma once

#include "kernel.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

// The instruction sets that were compiled, the fastest last: X(baseline) X(avx2) ...
#ifndef LOOKAROUND_INSTRUCTION_SETS
#define LOOKAROUND_INSTRUCTION_SETS X(baseline)
#endif

namespace lookaround {

#define X(name) extern const Kernel kernel_##name;
LOOKAROUND_INSTRUCTION_SETS
#undef X

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;
using Sizes = std::vector<int64_t>;

#define X(name) &kernel_##name,
const Kernel* const kKernels[] = {LOOKAROUND_INSTRUCTION_SETS};
#undef X

// Multiply-adds that are worth waking a thread for.
constexpr int64_t kWorkPerThread = 1 << 17;

const Kernel* fastest_supported() {
  const Kernel* found = nullptr;
  for (const Kernel* kernel : kKernels) {
    if (kernel->supported()) found = kernel;
  }
  STD_TORCH_CHECK(found != nullptr, "lookaround: no compiled kernel runs on this processor");
  return found;
}

std::atomic<const Kernel*>& selected_kernel() {
  static std::atomic<const Kernel*> selected{fastest_supported()};
  return selected;
}

// One word per compiled instruction set, the fastest last: name, name! (in use) or name? (not supported here).
std::string cpu_kernels() {
  std::string words;
  for (const Kernel* kernel : kKernels) {
    if (!words.empty()) words += ' ';
    words += kernel->name;
    if (!kernel->supported()) words += '?';
    if (kernel == selected_kernel().load()) words += '!';
  }
  return words;
}

void set_cpu_kernel(std::string name) {
  for (const Kernel* kernel : kKernels) {
    if (name != kernel->name) continue;
    STD_TORCH_CHECK(kernel->supported(), "lookaround: this processor has no ", name);
    selected_kernel().store(kernel);
    return;
  }
  STD_TORCH_CHECK(false, "lookaround: no kernel was compiled for ", name);
}

bool has_shape(const Tensor& tensor, const Sizes& shape) {
  const auto sizes = tensor.sizes();
  return sizes.size() == shape.size() && std::equal(shape.begin(), shape.end(), sizes.begin());
}

// The front door in Python checks and explains; these checks keep a direct call of the op inside its memory.
void check_image(const char* name, const Tensor& image, const Sizes& shape, ScalarType dtype) {
  STD_TORCH_CHECK(image.is_cpu() && image.scalar_type() == dtype && has_shape(image, shape),
                  "lookaround::local_attention: ", name, " must be a CPU tensor of the dtype of query and fit its shape");
}

template <class P>
void run_tasks(void (*function)(const P&, int64_t, int64_t), const P& p, int64_t tasks, int64_t work) {
  const int64_t grain = std::max<int64_t>(1, kWorkPerThread / std::max<int64_t>(1, work));
  torch::stable::parallel_for(0, tasks, grain, [&](int64_t first, int64_t last) { function(p, first, last); });
}

}  // namespace
}  // namespace lookaround
