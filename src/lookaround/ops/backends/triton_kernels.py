"""The forward kernel for GPUs, and what it shares with the backward kernels.

A program computes one tile of one image for several heads, one after the other. A tile is STRIPS strips of
BLOCK_Y x BLOCK_X queries; each strip has its own keys, the window lines of its queries, LINES lines of
WIDTH pixels at a time. Inside a strip everything is a small dense product on the tensor cores, batched over
strips: logits (strip query key), whose position part and window mask are what the product starts from.

The position part comes from one product of the queries with both tables: kernel_height + kernel_width
logits a query, "linear" below. `gather` moves them from offsets in the window to lines and columns of keys;
a pair's logit is the sum of its line's and its column's. Where a line or column lies outside the window or
the image it is minus infinity, so a sum with it is, and no logit needs a mask of its own.

Dilation splits an image into phases, each of which is an image without dilation.

Prefixes: i_ index, o_ offset in memory, m_ mask, p_ pointer, b_ block of values, n_ count. Sizes known to
the compiler are in capitals. Strides are counted in ALIGN elements, so that the compiler knows what they
are multiples of. A block's shape is on the line above it: strip, query, key, line, column, entry (of both
tables), dim.
"""

# Triton's functions are compiled from their source; no type of Python describes what is inside them.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,import-untyped"
# What kernels are compiled for is in capitals, also among the arguments.
# ruff: noqa: N803

import triton
import triton.language as tl

LARGE: tl.constexpr = tl.constexpr(1e38)  # two of them can be added
CAREFUL_FROM: tl.constexpr = tl.constexpr(1e6)  # logits (base 2) from which differences lose more than bits
LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
INFINITY: tl.constexpr = tl.constexpr(float("inf"))

# What changes from call to call must not compile a kernel anew. Strides along a vector are not listed: where
# one is 1, the compiler has to know.
SIZES = ["height", "width", "n_heads", "n_heads_each", "n_groups", "n_tiles_y", "n_tiles_x"]
STRIDES = [f"{tensor}_{dim}" for tensor in ("query", "key", "value") for dim in "byxh"] + [
    "rows_h",
    "columns_h",
]


@triton.jit
def multiply(b_left, b_right, b_start, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    """Compute left @ right, plus `b_start` unless it is None, in float32."""
    if UPCAST:  # the interpreter multiplies the bits of bfloat16 as if they were integers
        b_left, b_right = b_left.to(tl.float32), b_right.to(tl.float32)
    return tl.dot(b_left, b_right, acc=b_start, input_precision=PRECISION)


@triton.jit
def clamp(b_value, bound):
    """Hold finite what may be infinite; NaN becomes -bound."""
    return tl.minimum(tl.maximum(b_value, -bound), bound)


@triton.jit
def find_tile(n_groups, n_tiles_y, n_tiles_x, dilation_y, dilation_x):
    """Tell which image, group of heads, tile and phase the program has; neighbours in memory come first."""
    i_program = tl.program_id(0)
    i_group, i_program = i_program % n_groups, i_program // n_groups
    i_tile_x, i_program = i_program % n_tiles_x, i_program // n_tiles_x
    i_phase_x, i_program = i_program % dilation_x, i_program // dilation_x
    i_tile_y, i_program = i_program % n_tiles_y, i_program // n_tiles_y
    i_phase_y, i_program = i_program % dilation_y, i_program // dilation_y
    return i_program.to(tl.int64), i_group, i_tile_y, i_tile_x, i_phase_y, i_phase_x


@triton.jit
def load_tables(p_rows, p_columns, i_head, rows_h, columns_h, DIM: tl.constexpr, DIM_: tl.constexpr,
                KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr, ENTRIES: tl.constexpr,
                HAS_ROWS: tl.constexpr, HAS_COLUMNS: tl.constexpr):  # fmt: skip
    """Load both tables as one: dim entry. The rows have the first half of dim, the columns the second."""
    HALF: tl.constexpr = DIM // 2
    i_dim = tl.arange(0, DIM_)[:, None]
    i_entry = tl.arange(0, ENTRIES)[None, :]
    # dim entry
    if HAS_ROWS:
        m_rows = (i_dim < HALF) & (i_entry < KERNEL_Y)
        b_rows = tl.load(p_rows + i_head * rows_h + i_entry * HALF + i_dim, mask=m_rows, other=0.0)
        b_table = b_rows
    if HAS_COLUMNS:
        i_column = i_entry - KERNEL_Y
        m_columns = (i_dim >= HALF) & (i_dim < DIM) & (i_column >= 0) & (i_column < KERNEL_X)
        o_columns = i_head * columns_h + i_column * HALF + i_dim - HALF
        b_columns = tl.load(p_columns + o_columns, mask=m_columns, other=0.0)
        b_table = b_columns
    if HAS_ROWS and HAS_COLUMNS:
        b_table = tl.where(i_entry < KERNEL_Y, b_rows, b_columns)
    return b_table


@triton.jit
def start_lines(b_linear, b_column_logits, p_padding, i_first, i_top, i_left, phase_y, phase_x,
                dilation_y, dilation_x, height, width, STRIPS: tl.constexpr, BLOCK_Y: tl.constexpr,
                BLOCK_X: tl.constexpr, LINES: tl.constexpr, WIDTH: tl.constexpr, KERNEL_Y: tl.constexpr,
                KERNEL_X: tl.constexpr, HAS_LINEAR: tl.constexpr, HAS_PADDING: tl.constexpr,
                ZEROS: tl.constexpr,
                OFFSETS: tl.constexpr):  # fmt: skip
    """Give the logits of some lines of keys without the content, minus infinity where a key does not count.

    Returns also where the keys are (strip key), and which of them are pixels of the image (strip key).
    """
    QUERIES: tl.constexpr = BLOCK_Y * BLOCK_X
    KEYS: tl.constexpr = LINES * WIDTH
    RADIUS_Y: tl.constexpr = KERNEL_Y // 2
    i_strip = tl.arange(0, STRIPS)[:, None]
    i_key = tl.arange(0, KEYS)[None, :]
    # strip key
    i_line = i_first + i_key // WIDTH
    i_y = ((i_top + i_strip * BLOCK_Y + i_line - RADIUS_Y) * dilation_y + phase_y).to(OFFSETS)
    i_x = ((i_left + i_key % WIDTH - KERNEL_X // 2) * dilation_x + phase_x).to(OFFSETS)
    m_key = (i_y >= 0) & (i_y < height) & (i_line < KERNEL_Y + BLOCK_Y - 1)
    m_key = m_key & (i_x >= 0) & (i_x < width) & (i_key % WIDTH < BLOCK_X + KERNEL_X - 1)
    if HAS_PADDING:
        m_key = m_key & (tl.load(p_padding + i_y * width + i_x, mask=m_key, other=1) == 0)
    # query line
    i_row = i_first + tl.arange(0, LINES)[None, :] - (tl.arange(0, QUERIES) // BLOCK_X)[:, None]
    m_row = ((i_row >= 0) & (i_row < KERNEL_Y))[None, :, :]
    # strip query line
    if ZEROS:
        m_row = tl.broadcast_to(m_row, (STRIPS, QUERIES, LINES))
    else:
        i_line_y = i_top + i_strip * BLOCK_Y + i_first + tl.arange(0, LINES)[None, :] - RADIUS_Y
        i_line_y = i_line_y * dilation_y + phase_y
        m_row = m_row & ((i_line_y >= 0) & (i_line_y < height))[:, None, :]
    if HAS_LINEAR:
        i_entry = tl.minimum(tl.maximum(i_row, 0), KERNEL_Y - 1)[None, :, :]
        i_entry = tl.broadcast_to(i_entry, (STRIPS, QUERIES, LINES))
        b_row_logits = tl.where(m_row, tl.gather(b_linear, i_entry, axis=2), -INFINITY)
    else:
        b_row_logits = tl.where(m_row, 0.0, -INFINITY)
    # strip query key
    b_logits = b_row_logits[:, :, :, None] + b_column_logits[:, :, None, :]
    b_logits = tl.reshape(b_logits, (STRIPS, QUERIES, KEYS))
    if HAS_PADDING and not ZEROS:
        b_logits += tl.where(m_key, 0.0, -INFINITY)[:, None, :]
    return b_logits, i_y, i_x, m_key


@triton.jit
def attend_lines(b_query, b_linear, b_column_logits, p_key, p_value, p_padding,
                 key_y, key_x, key_d, value_y, value_x, value_d,
                 i_top, i_left, phase_y, phase_x, dilation_y, dilation_x, height, width, factor, bound,
                 STRIPS: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, LINES: tl.constexpr,
                 WIDTH: tl.constexpr, DIM: tl.constexpr, DIM_: tl.constexpr, VALUE_DIM: tl.constexpr,
                 VALUE_DIM_: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr,
                 HAS_KEY: tl.constexpr, HAS_LINEAR: tl.constexpr, HAS_PADDING: tl.constexpr,
                 ZEROS: tl.constexpr, ALIGN: tl.constexpr, OFFSETS: tl.constexpr, PRECISION: tl.constexpr,
                 UPCAST: tl.constexpr, CAREFUL: tl.constexpr):  # fmt: skip
    """Attend from the strips of one head to the lines of their windows.

    Returns the sum of weighted values, the sum of weights, and the largest logit before `factor`.
    With CAREFUL no logit becomes infinite, at the cost of some instructions for each of them.
    """
    QUERIES: tl.constexpr = BLOCK_Y * BLOCK_X
    i_dim = tl.arange(0, DIM_)[None, :, None]
    i_value_dim = tl.arange(0, VALUE_DIM_)[None, None, :]
    # strip query dim
    b_out = tl.zeros((STRIPS, QUERIES, VALUE_DIM_), tl.float32)
    # strip query
    b_largest = tl.full((STRIPS, QUERIES), -INFINITY, tl.float32)
    b_sum = tl.zeros((STRIPS, QUERIES), tl.float32)
    for i_first in range(0, KERNEL_Y + BLOCK_Y - 1, LINES):
        # strip query key
        b_logits, i_y, i_x, m_key = start_lines(
            b_linear, b_column_logits, p_padding, i_first, i_top, i_left, phase_y, phase_x,
            dilation_y, dilation_x,
            height, width, STRIPS, BLOCK_Y, BLOCK_X, LINES, WIDTH, KERNEL_Y, KERNEL_X, HAS_LINEAR,
            HAS_PADDING,
            ZEROS, OFFSETS)  # fmt: skip
        if HAS_KEY:
            # strip dim key
            o_key = (i_y * key_y + i_x * key_x)[:, None, :] * ALIGN + i_dim * key_d
            b_key = tl.load(p_key + o_key, mask=m_key[:, None, :] & (i_dim < DIM), other=0.0)
            # strip query key
            if CAREFUL:
                b_content = clamp(multiply(b_query, b_key, None, PRECISION, UPCAST), LARGE)
                b_finite = clamp(b_content + b_logits, bound)
                b_logits = tl.where(b_logits == -INFINITY, -INFINITY, b_finite)
            else:
                b_logits = multiply(b_query, b_key, b_logits, PRECISION, UPCAST)
        elif CAREFUL:
            b_logits = tl.where(b_logits == -INFINITY, -INFINITY, clamp(b_logits, bound))
        # strip query
        b_larger = tl.maximum(b_largest, tl.max(b_logits, axis=2))
        b_finite_larger = tl.where(b_larger == -INFINITY, 0.0, b_larger)
        b_rescale = tl.exp2((b_largest - b_finite_larger) * factor)
        # strip query key
        if CAREFUL:
            b_weights = tl.exp2((b_logits - b_finite_larger[:, :, None]) * factor)
        else:
            b_weights = tl.exp2(b_logits * factor - (b_finite_larger * factor)[:, :, None])
        b_sum = b_sum * b_rescale + tl.sum(b_weights, axis=2)
        # strip key dim
        o_value = (i_y * value_y + i_x * value_x)[:, :, None] * ALIGN + i_value_dim * value_d
        m_value = m_key[:, :, None] & (i_value_dim < VALUE_DIM)
        b_value = tl.load(p_value + o_value, mask=m_value, other=0.0)
        b_out = multiply(
            b_weights.to(b_value.dtype), b_value, b_out * b_rescale[:, :, None], PRECISION, UPCAST
        )
        b_largest = b_larger
    return b_out, b_sum, b_largest


@triton.jit
def shift_columns(b_linear, i_left, phase_x, dilation_x, width,
                  STRIPS: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, WIDTH: tl.constexpr,
                  KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr, HAS_LINEAR: tl.constexpr,
                  ZEROS: tl.constexpr):  # fmt: skip
    """Give the column's logit of each query with each column of keys: strip query column."""
    QUERIES: tl.constexpr = BLOCK_Y * BLOCK_X
    i_column = tl.arange(0, WIDTH)[None, :]
    # query column
    i_offset = i_column - (tl.arange(0, QUERIES) % BLOCK_X)[:, None]
    i_x = (i_left + i_column - KERNEL_X // 2) * dilation_x + phase_x
    m_column = (i_offset >= 0) & (i_offset < KERNEL_X)
    if not ZEROS:
        m_column = m_column & (i_x >= 0) & (i_x < width)
    # strip query column
    m_column = tl.broadcast_to(m_column[None, :, :], (STRIPS, QUERIES, WIDTH))
    if HAS_LINEAR:
        i_entry = KERNEL_Y + tl.minimum(tl.maximum(i_offset, 0), KERNEL_X - 1)[None, :, :]
        i_entry = tl.broadcast_to(i_entry, (STRIPS, QUERIES, WIDTH))
        b_logits = tl.where(m_column, tl.gather(b_linear, i_entry, axis=2), -INFINITY)
    else:
        b_logits = tl.where(m_column, 0.0, -INFINITY)
    return b_logits


@triton.jit(do_not_specialize=SIZES + STRIDES)
def forward_kernel(p_query, p_key, p_value, p_rows, p_columns, p_padding, p_out, p_logsumexp,
                   query_b, query_y, query_x, query_h, query_d, key_b, key_y, key_x, key_h, key_d,
                   value_b, value_y, value_x, value_h, value_d, rows_h, columns_h,
                   height, width, n_heads, n_heads_each, n_groups, n_tiles_y, n_tiles_x,
                   dilation_y, dilation_x, factor, bound,
                   STRIPS: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, LINES: tl.constexpr,
                   WIDTH: tl.constexpr, DIM: tl.constexpr, DIM_: tl.constexpr, VALUE_DIM: tl.constexpr,
                   VALUE_DIM_: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr,
                   ENTRIES: tl.constexpr, HAS_KEY: tl.constexpr, HAS_ROWS: tl.constexpr,
                   HAS_COLUMNS: tl.constexpr, HAS_PADDING: tl.constexpr, ZEROS: tl.constexpr,
                   ALIGN: tl.constexpr, OFFSETS: tl.constexpr, SIGN: tl.constexpr,
                   PRECISION: tl.constexpr, UPCAST: tl.constexpr):  # fmt: skip
    """Compute output and log-sum-exp (base 2, batch heads height width) of one tile and some heads.

    `SIGN * factor` is the scale times log2(e): the sign goes to the queries, which it leaves exact.
    """
    HAS_LINEAR: tl.constexpr = HAS_ROWS or HAS_COLUMNS
    QUERIES: tl.constexpr = BLOCK_Y * BLOCK_X
    i_batch, i_group, i_tile_y, i_tile_x, phase_y, phase_x = find_tile(
        n_groups, n_tiles_y, n_tiles_x, dilation_y, dilation_x
    )
    i_top = i_tile_y * (STRIPS * BLOCK_Y)
    i_left = i_tile_x * BLOCK_X
    i_query = tl.arange(0, QUERIES)[None, :]
    i_dim = tl.arange(0, DIM_)
    i_value_dim = tl.arange(0, VALUE_DIM_)
    # strip query
    i_y = i_top + tl.arange(0, STRIPS)[:, None] * BLOCK_Y + i_query // BLOCK_X
    i_y = (i_y * dilation_y + phase_y).to(OFFSETS)
    i_x = ((i_left + i_query % BLOCK_X) * dilation_x + phase_x).to(OFFSETS)
    m_inside = (i_y < height) & (i_x < width)
    m_query = m_inside
    o_image = i_batch * height * width
    if HAS_PADDING:
        p_padding += o_image
        m_query = m_inside & (tl.load(p_padding + i_y * width + i_x, mask=m_inside, other=1) == 0)
    # strip query dim
    o_query = (i_y * query_y + i_x * query_x)[:, :, None] * ALIGN + i_dim * query_d
    m_query_dim = m_query[:, :, None] & (i_dim < DIM)
    for i_head in range(i_group * n_heads_each, min((i_group + 1) * n_heads_each, n_heads)):
        i_head_ = tl.cast(i_head, tl.int64)
        p_query_head = p_query + (i_batch * query_b + i_head_ * query_h) * ALIGN
        p_key_head = p_key
        if HAS_KEY:
            p_key_head += (i_batch * key_b + i_head_ * key_h) * ALIGN
        p_value_head = p_value + (i_batch * value_b + i_head_ * value_h) * ALIGN
        # strip query dim
        b_query = tl.load(p_query_head + o_query, mask=m_query_dim, other=0.0)
        if SIGN != 1:
            b_query = (b_query.to(tl.float32) * SIGN).to(b_query.dtype)
        # strip query entry
        b_linear = None
        if HAS_LINEAR:
            b_table = load_tables(p_rows, p_columns, i_head, rows_h, columns_h, DIM, DIM_, KERNEL_Y, KERNEL_X,
                                  ENTRIES, HAS_ROWS, HAS_COLUMNS)  # fmt: skip
            b_table = tl.broadcast_to(b_table[None, :, :], (STRIPS, DIM_, ENTRIES))
            b_linear = clamp(multiply(b_query, b_table, None, PRECISION, UPCAST), LARGE)
        b_column_logits = shift_columns(b_linear, i_left, phase_x, dilation_x, width, STRIPS, BLOCK_Y,
                                        BLOCK_X, WIDTH, KERNEL_Y, KERNEL_X, HAS_LINEAR, ZEROS)  # fmt: skip
        b_out, b_sum, b_largest = attend_lines(
            b_query, b_linear, b_column_logits, p_key_head, p_value_head, p_padding,
            key_y, key_x, key_d, value_y, value_x, value_d, i_top, i_left, phase_y, phase_x,
            dilation_y, dilation_x,
            height, width, factor, bound, STRIPS, BLOCK_Y, BLOCK_X, LINES, WIDTH, DIM, DIM_, VALUE_DIM,
            VALUE_DIM_, KERNEL_Y, KERNEL_X, HAS_KEY, HAS_LINEAR, HAS_PADDING, ZEROS, ALIGN,
            OFFSETS, PRECISION,
            UPCAST, CAREFUL=False)  # fmt: skip
        # A query sees itself at least, so a sum of zero, an infinity or a NaN is an overflow.
        m_fine = (tl.abs(b_largest) * factor < CAREFUL_FROM) & (b_sum == b_sum)
        if tl.max(tl.max((m_query & (m_fine == 0)).to(tl.int32), axis=1), axis=0) > 0:
            b_out, b_sum, b_largest = attend_lines(
                b_query, b_linear, b_column_logits, p_key_head, p_value_head, p_padding,
                key_y, key_x, key_d, value_y, value_x, value_d, i_top, i_left, phase_y, phase_x,
                dilation_y, dilation_x,
                height, width, factor, bound, STRIPS, BLOCK_Y, BLOCK_X, LINES, WIDTH, DIM, DIM_, VALUE_DIM,
                VALUE_DIM_, KERNEL_Y, KERNEL_X, HAS_KEY, HAS_LINEAR, HAS_PADDING, ZEROS, ALIGN,
                OFFSETS, PRECISION,
                UPCAST, CAREFUL=True)  # fmt: skip
        # strip query
        b_sum = tl.where(m_query, b_sum, 1.0)
        b_logsumexp = tl.where(m_query, b_largest * factor + tl.log2(b_sum), INFINITY)
        o_pixel = i_y * width + i_x
        p_logsumexp_head = p_logsumexp + (i_batch * n_heads + i_head_) * height * width
        tl.store(p_logsumexp_head + o_pixel, b_logsumexp, mask=m_inside)
        # strip query dim
        b_out = tl.where(m_query[:, :, None], b_out / b_sum[:, :, None], 0.0)
        p_out_head = p_out + (o_image * n_heads + i_head_) * VALUE_DIM
        m_out = m_inside[:, :, None] & (i_value_dim < VALUE_DIM)
        o_out = (o_pixel * n_heads)[:, :, None] * VALUE_DIM + i_value_dim
        tl.store(p_out_head + o_out, b_out.to(p_out.dtype.element_ty), mask=m_out)
