// The native CPU kernel's interface: plain data and function pointers, free of torch.
//
// kernel.cpp is compiled once per instruction set, each time into a namespace of its own; registration.cpp
// binds the fastest one that the processor supports to torch.

#pragma once

#include <cstdint>

namespace lookaround {

enum class Dtype : int { float32, bfloat16 };

// batch height width heads dim; strides count elements. What is written has a contiguous last dimension (channel 1);
// what is read may have contiguous pixels instead (width 1), as a projection that is made for the kernel has.
struct View {
  void* data = nullptr;
  int64_t batch = 0;
  int64_t height = 0;
  int64_t width = 0;
  int64_t head = 0;
  int64_t channel = 1;
};

// One call of the operator, forward or backward. What a call does not have is a null pointer.
struct Problem {
  int64_t batch = 0, height = 0, width = 0, heads = 0, head_dim = 0, value_dim = 0;
  int64_t kernel_height = 1, kernel_width = 1, dilation_height = 1, dilation_width = 1;
  float scale = 1.0f;
  bool zeros_border = false;  // pixels outside take part as zeros, instead of being absent
  Dtype dtype = Dtype::float32;

  View query, key, value;          // read; key.data may be null
  const float* rows = nullptr;     // [heads] kernel_height head_dim/2
  const float* columns = nullptr;  // [heads] kernel_width head_dim/2
  int64_t rows_head_stride = 0;    // 0: shared by the heads
  int64_t columns_head_stride = 0;
  const bool* padding = nullptr;  // batch height width, contiguous; true: no part of the image

  View out;                        // written by forward
  const float* out_bias = nullptr;  // heads value_dim: added to the output of forward
  bool out_relu = false;           // of forward, after the bias
  float* logsumexp = nullptr;  // batch heads height width, contiguous; forward writes, backward reads

  View grad_out;                            // read by backward
  View grad_query, grad_key, grad_value;    // written by backward, every element
  float* grad_rows = nullptr;     // batch heads kernel_height head_dim/2: one part per task, written by backward
  float* grad_columns = nullptr;  // batch heads kernel_width head_dim/2
};

// Attention inside blocks of size x size pixels, each pixel's logits a bilinear form of the pixels of its block.
constexpr int64_t kMostPlaces = 64;  // pixels of the largest block

struct BlockProblem {
  int64_t batch = 0, height = 0, width = 0, channels = 0, heads = 0, head_dim = 0, size = 0;
  bool pooled = false;             // write the largest output of each block instead of every pixel's
  const float* pixels = nullptr;   // batch height width channel, by these strides
  int64_t pixel_strides[4] = {0, 0, 0, 0};
  const float* form = nullptr;     // heads channel channel
  const float* maps = nullptr;     // place heads head_dim channel
  float* out = nullptr;            // batch height width heads*head_dim, or batch blocks blocks heads*head_dim
  // Instead of out: of each block the largest and the smallest output, and task 2 heads*head_dim sums of x and x².
  float *largest = nullptr, *smallest = nullptr, *moments = nullptr;
  const float* grad_out = nullptr;                       // read by backward, as out
  // With these (heads*head_dim), grad_out is that of each block's largest output, or of the smallest where the scale
  // is negative, after a batch norm: the gradient of x is scale * g + slope * x + offset.
  const float *scale = nullptr, *slope = nullptr, *offset = nullptr;
  float *grad_form = nullptr, *grad_maps = nullptr;      // task, then as form and maps; written by backward
};

// Batch norm in training over pixels of channels, and its gradient. With mean and variance of the batch,
// y = relu(x * scale + shift + added), where scale = weight / sqrt(variance + eps), shift = bias - mean * scale.
struct NormProblem {
  int64_t pixels = 0, channels = 0, pixels_per_task = 1;
  const float* x = nullptr;      // pixels channels, as all images here
  const float* added = nullptr;  // null: nothing is added
  float* y = nullptr;            // written forward; read backward where something was added
  const float *mean = nullptr, *scale = nullptr, *shift = nullptr;  // channels
  float* sums = nullptr;  // task 2 channels: of x and x²; backward of the gradient g and g * (x - mean)

  const float* grad = nullptr;
  float *grad_x = nullptr, *grad_added = nullptr;  // grad_added: if something was added; grad_x = scale * g + slope * x + offset
  const float *slope = nullptr, *offset = nullptr;
};

// A task is one head of one image: task = image * heads + head. Tasks are independent of each other, and
// their results do not depend on how they are spread over threads.
struct Kernel {
  const char* name;
  bool (*supported)();
  void (*forward)(const Problem&, int64_t first_task, int64_t last_task);
  void (*backward)(const Problem&, int64_t first_task, int64_t last_task);
  // Here a task is one row of blocks of one image: task = image * rows + row.
  void (*blocks_forward)(const BlockProblem&, int64_t first_task, int64_t last_task);
  void (*blocks_backward)(const BlockProblem&, int64_t first_task, int64_t last_task);
  // Here a task is some pixels, whatever the number of threads.
  void (*moments)(const NormProblem&, int64_t first_task, int64_t last_task);
  void (*normalize)(const NormProblem&, int64_t first_task, int64_t last_task);
  void (*sum_gradients)(const NormProblem&, int64_t first_task, int64_t last_task);
  void (*differentiate)(const NormProblem&, int64_t first_task, int64_t last_task);
};

}  // namespace lookaround
