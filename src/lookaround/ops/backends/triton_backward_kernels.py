"""The backward kernels for GPUs: weights are computed again from the log-sum-exp, tile by tile.

`query_kernel` goes the way of the forward kernel: a program holds queries and meets the lines of their
keys. It writes the gradient of the queries and the program's share of the tables' gradients, which are
added up outside. `key_kernel` holds keys and meets the lines of the queries that see them, so that no two
programs add to the same number: the same call gives the same bits.

Prefixes and shapes are those of `triton_kernels`.
"""

# Triton's functions are compiled from their source; no type of Python describes what is inside them.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,misc,import-untyped"
# What kernels are compiled for is in capitals, also among the arguments.
# ruff: noqa: N803

import triton
import triton.language as tl

from lookaround.ops.backends.triton_kernels import (
    INFINITY,
    LARGE,
    SIZES,
    STRIDES,
    clamp,
    find_tile,
    load_tables,
    multiply,
    shift_columns,
    start_lines,
)

GRAD_STRIDES = [f"grad_{dim}" for dim in "byxh"]
TO_STRIDES = [f"to_{tensor}{dim}" for tensor in ("", "key_", "value_") for dim in "byxh"]


@triton.jit
def differentiate_tables(b_to_linear, b_table, b_query, b_to_query, PRECISION: tl.constexpr,
                         UPCAST: tl.constexpr):  # fmt: skip
    """Add the tables' part to the gradient of the queries, and give the gradient of the tables: entry dim.

    Half types take the factor in two parts, its rounding and the rest: tables sum over every pixel, and these
    products are few.
    """
    # strip query entry
    b_rounded = b_to_linear.to(b_query.dtype)
    # strip entry dim
    b_entries = tl.permute(b_table, (0, 2, 1))
    b_to_query = multiply(b_rounded, b_entries, b_to_query, PRECISION, UPCAST)
    b_to_table = multiply(tl.permute(b_rounded, (0, 2, 1)), b_query, None, PRECISION, UPCAST)
    if b_query.dtype != tl.float32:
        b_rest = (b_to_linear - b_rounded.to(tl.float32)).to(b_query.dtype)
        b_to_query = multiply(b_rest, b_entries, b_to_query, PRECISION, UPCAST)
        b_to_table = multiply(tl.permute(b_rest, (0, 2, 1)), b_query, b_to_table, PRECISION, UPCAST)
    return b_to_query, tl.sum(b_to_table, axis=0)


@triton.jit
def add_marginals(b_pairs, b_linear, i_first, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
                  LINES: tl.constexpr, WIDTH: tl.constexpr, KERNEL_Y: tl.constexpr,
                  ENTRIES: tl.constexpr):  # fmt: skip
    """Sum pairs (strip query key) over lines, and over columns into the entries of the row table.

    Returns the sums over lines (strip query column), and `b_linear` (strip query entry) with the others.
    """
    STRIPS: tl.constexpr = b_pairs.shape[0]
    QUERIES: tl.constexpr = BLOCK_Y * BLOCK_X
    # strip query line column
    b_pairs = tl.reshape(b_pairs, (STRIPS, QUERIES, LINES, WIDTH))
    # query entry
    i_line = tl.arange(0, ENTRIES)[None, :] + (tl.arange(0, QUERIES) // BLOCK_X)[:, None] - i_first
    m_line = (i_line >= 0) & (i_line < LINES) & (tl.arange(0, ENTRIES)[None, :] < KERNEL_Y)
    i_line = tl.minimum(tl.maximum(i_line, 0), LINES - 1)[None, :, :]
    # strip query entry
    i_line = tl.broadcast_to(i_line, (STRIPS, QUERIES, ENTRIES))
    b_rows = tl.gather(tl.sum(b_pairs, axis=3), i_line, axis=2)
    return tl.sum(b_pairs, axis=2), b_linear + tl.where(m_line[None, :, :], b_rows, 0.0)


@triton.jit
def add_columns(b_columns, b_linear, BLOCK_X: tl.constexpr, WIDTH: tl.constexpr, KERNEL_Y: tl.constexpr,
                KERNEL_X: tl.constexpr, ENTRIES: tl.constexpr):  # fmt: skip
    """Add sums by column (strip query column) to the entries of the column table (strip query entry)."""
    STRIPS: tl.constexpr = b_columns.shape[0]
    QUERIES: tl.constexpr = b_columns.shape[1]
    # query entry
    i_column = tl.arange(0, ENTRIES)[None, :] - KERNEL_Y
    m_column = (i_column >= 0) & (i_column < KERNEL_X)
    i_column = i_column + (tl.arange(0, QUERIES) % BLOCK_X)[:, None]
    i_column = tl.minimum(tl.maximum(i_column, 0), WIDTH - 1)[None, :, :]
    # strip query entry
    i_column = tl.broadcast_to(i_column, (STRIPS, QUERIES, ENTRIES))
    return b_linear + tl.where(m_column[None, :, :], tl.gather(b_columns, i_column, axis=2), 0.0)


@triton.jit
def weigh(b_logits, b_logsumexp, factor):
    """Compute the weights again; whatever overflowed, they lie in 0 ... 1."""
    b_exponent = b_logits * factor - b_logsumexp
    return tl.exp2(tl.minimum(tl.maximum(b_exponent, -LARGE), 0.0))


@triton.jit(do_not_specialize=SIZES + STRIDES + GRAD_STRIDES + TO_STRIDES[:4])
def query_kernel(p_query, p_key, p_value, p_rows, p_columns, p_padding, p_grad, p_out, p_logsumexp,
                 p_delta, p_to_query, p_to_rows, p_to_columns,
                 query_b, query_y, query_x, query_h, query_d, key_b, key_y, key_x, key_h, key_d,
                 value_b, value_y, value_x, value_h, value_d, grad_b, grad_y, grad_x, grad_h, grad_d,
                 to_b, to_y, to_x, to_h, rows_h, columns_h,
                 height, width, n_heads, n_heads_each, n_groups, n_tiles_y, n_tiles_x,
                 dilation_y, dilation_x, factor, scale,
                 STRIPS: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, LINES: tl.constexpr,
                 WIDTH: tl.constexpr, DIM: tl.constexpr, DIM_: tl.constexpr, VALUE_DIM: tl.constexpr,
                 VALUE_DIM_: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr,
                 ENTRIES: tl.constexpr, HAS_KEY: tl.constexpr, HAS_ROWS: tl.constexpr,
                 HAS_COLUMNS: tl.constexpr, HAS_PADDING: tl.constexpr, ZEROS: tl.constexpr,
                 ALIGN: tl.constexpr, OFFSETS: tl.constexpr, SIGN: tl.constexpr,
                 PRECISION: tl.constexpr, UPCAST: tl.constexpr):  # fmt: skip
    """Compute the gradients of one tile of queries, and delta = out·grad_out (batch heads height width).

    The tables' gradients are written for each program and head: program heads kernel head_dim/2.
    """
    HAS_LINEAR: tl.constexpr = HAS_ROWS or HAS_COLUMNS
    QUERIES: tl.constexpr = BLOCK_Y * BLOCK_X
    HALF: tl.constexpr = DIM // 2
    ROUNDED: tl.constexpr = p_out.dtype.element_ty != tl.float32
    i_batch, i_group, i_tile_y, i_tile_x, phase_y, phase_x = find_tile(
        n_groups, n_tiles_y, n_tiles_x, dilation_y, dilation_x
    )
    i_part = (tl.program_id(0) // n_groups).to(tl.int64)
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
    o_pixel = i_y * width + i_x
    # strip query dim
    m_dim = i_dim < DIM
    m_value_dim = i_value_dim < VALUE_DIM
    o_query = (i_y * query_y + i_x * query_x)[:, :, None] * ALIGN + i_dim * query_d
    o_grad = (i_y * grad_y + i_x * grad_x)[:, :, None] * ALIGN + i_value_dim * grad_d
    o_out = (o_pixel * n_heads)[:, :, None] * VALUE_DIM + i_value_dim
    for i_head in range(i_group * n_heads_each, min((i_group + 1) * n_heads_each, n_heads)):
        i_head_ = tl.cast(i_head, tl.int64)
        p_key_head = p_key
        if HAS_KEY:
            p_key_head += (i_batch * key_b + i_head_ * key_h) * ALIGN
        p_value_head = p_value + (i_batch * value_b + i_head_ * value_h) * ALIGN
        p_query_head = p_query + (i_batch * query_b + i_head_ * query_h) * ALIGN
        p_grad_head = p_grad + (i_batch * grad_b + i_head_ * grad_h) * ALIGN
        p_out_head = p_out + (o_image * n_heads + i_head_) * VALUE_DIM
        # strip query dim
        b_query = tl.load(p_query_head + o_query, mask=m_query[:, :, None] & m_dim, other=0.0)
        if SIGN != 1:
            b_query = (b_query.to(tl.float32) * SIGN).to(b_query.dtype)
        m_grad = m_query[:, :, None] & m_value_dim
        b_grad = tl.load(p_grad_head + o_grad, mask=m_grad, other=0.0)
        b_out = tl.load(p_out_head + o_out, mask=m_grad, other=0.0)
        # strip query
        o_head = (i_batch * n_heads + i_head_) * height * width
        b_logsumexp = tl.load(p_logsumexp + o_head + o_pixel, mask=m_query, other=INFINITY)
        b_delta = tl.sum(b_grad.to(tl.float32) * b_out.to(tl.float32), axis=2)
        # strip query entry
        b_linear = None
        if HAS_LINEAR:
            b_table = load_tables(p_rows, p_columns, i_head, rows_h, columns_h, DIM, DIM_, KERNEL_Y, KERNEL_X,
                                  ENTRIES, HAS_ROWS, HAS_COLUMNS)  # fmt: skip
            b_table = tl.broadcast_to(b_table[None, :, :], (STRIPS, DIM_, ENTRIES))
            b_linear = clamp(multiply(b_query, b_table, None, PRECISION, UPCAST), LARGE)
            b_to_linear = tl.zeros((STRIPS, QUERIES, ENTRIES), tl.float32)
            b_mass = tl.zeros((STRIPS, QUERIES, ENTRIES), tl.float32)
        b_column_logits = shift_columns(b_linear, i_left, phase_x, dilation_x, width, STRIPS, BLOCK_Y,
                                        BLOCK_X, WIDTH, KERNEL_Y, KERNEL_X, HAS_LINEAR, ZEROS)  # fmt: skip
        # strip query column
        b_to_columns = tl.zeros((STRIPS, QUERIES, WIDTH), tl.float32)
        b_mass_columns = tl.zeros((STRIPS, QUERIES, WIDTH), tl.float32)
        # strip query
        b_error = tl.zeros((STRIPS, QUERIES), tl.float32)
        # strip query dim
        b_to_query = tl.zeros((STRIPS, QUERIES, DIM_), tl.float32)
        b_mean_key = tl.zeros((STRIPS, QUERIES, DIM_), tl.float32)
        for i_first in range(0, KERNEL_Y + BLOCK_Y - 1, LINES):
            # strip query key
            b_logits, i_key_y, i_key_x, m_key = start_lines(
                b_linear, b_column_logits, p_padding, i_first, i_top, i_left, phase_y, phase_x, dilation_y,
                dilation_x, height, width, STRIPS, BLOCK_Y, BLOCK_X, LINES, WIDTH, KERNEL_Y,
                KERNEL_X, HAS_LINEAR,
                HAS_PADDING, ZEROS, OFFSETS)  # fmt: skip
            if HAS_KEY:
                # strip dim key
                o_key = (i_key_y * key_y + i_key_x * key_x)[:, None, :] * ALIGN + i_dim[:, None] * key_d
                b_key = tl.load(p_key_head + o_key, mask=m_key[:, None, :] & m_dim[:, None], other=0.0)
                b_logits = multiply(b_query, b_key, b_logits, PRECISION, UPCAST)
            # strip query key
            b_weights = weigh(b_logits, b_logsumexp[:, :, None], factor)
            # strip dim key
            o_value = (i_key_y * value_y + i_key_x * value_x)[:, None, :] * ALIGN + i_value_dim[
                :, None
            ] * value_d
            b_value = tl.load(
                p_value_head + o_value, mask=m_key[:, None, :] & m_value_dim[:, None], other=0.0
            )
            # strip query key
            b_to_weights = multiply(b_grad, b_value, None, PRECISION, UPCAST)
            b_to_logits = b_weights * (b_to_weights - b_delta[:, :, None])
            if HAS_KEY:
                b_to_query = multiply(
                    b_to_logits.to(b_key.dtype), tl.permute(b_key, (0, 2, 1)), b_to_query, PRECISION, UPCAST
                )
            if ROUNDED:
                b_error += tl.sum(b_to_logits, axis=2)
                if HAS_KEY:
                    b_mean_key = multiply(
                        b_weights.to(b_key.dtype), tl.permute(b_key, (0, 2, 1)), b_mean_key, PRECISION, UPCAST
                    )
            if HAS_LINEAR:
                b_part, b_to_linear = add_marginals(
                    b_to_logits, b_to_linear, i_first, BLOCK_Y, BLOCK_X, LINES, WIDTH, KERNEL_Y, ENTRIES
                )
                b_to_columns += b_part
                if ROUNDED:
                    b_part, b_mass = add_marginals(
                        b_weights, b_mass, i_first, BLOCK_Y, BLOCK_X, LINES, WIDTH, KERNEL_Y, ENTRIES
                    )
                    b_mass_columns += b_part
        # The output was rounded, so delta is off: by what the logits' gradients fail to sum to zero.
        tl.store(p_delta + o_head + o_pixel, b_delta + b_error, mask=m_inside)
        if ROUNDED:
            b_to_query -= b_error[:, :, None] * b_mean_key
        if HAS_LINEAR:
            b_to_linear = add_columns(b_to_columns, b_to_linear, BLOCK_X, WIDTH, KERNEL_Y, KERNEL_X, ENTRIES)
            if ROUNDED:
                # strip query entry
                b_mass = add_columns(b_mass_columns, b_mass, BLOCK_X, WIDTH, KERNEL_Y, KERNEL_X, ENTRIES)
                b_to_linear -= b_error[:, :, None] * b_mass
            # entry dim
            b_to_query, b_to_table = differentiate_tables(
                b_to_linear, b_table, b_query, b_to_query, PRECISION, UPCAST
            )
            b_to_table = b_to_table * (scale * SIGN)
            i_entry = tl.arange(0, ENTRIES)[:, None]
            o_part = i_part * n_heads + i_head
            if HAS_ROWS:
                m_rows = (i_entry < KERNEL_Y) & (i_dim < HALF)
                tl.store(
                    p_to_rows + o_part * KERNEL_Y * HALF + i_entry * HALF + i_dim, b_to_table, mask=m_rows
                )
            if HAS_COLUMNS:
                m_columns = (i_entry >= KERNEL_Y) & (i_entry < KERNEL_Y + KERNEL_X)
                m_columns = m_columns & (i_dim >= HALF) & m_dim
                o_columns = (i_entry - KERNEL_Y) * HALF + i_dim - HALF
                tl.store(p_to_columns + o_part * KERNEL_X * HALF + o_columns, b_to_table, mask=m_columns)
        # strip query dim
        p_to_query_head = p_to_query + (i_batch * to_b + i_head_ * to_h) * ALIGN
        o_to_query = (i_y * to_y + i_x * to_x)[:, :, None] * ALIGN + i_dim
        b_to_query = (b_to_query * scale).to(p_to_query.dtype.element_ty)
        tl.store(p_to_query_head + o_to_query, b_to_query, mask=m_inside[:, :, None] & m_dim)


@triton.jit
def shift_queries(b_linear, i_first, STRIPS: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
                  LINES: tl.constexpr, WIDTH: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr,
                  HAS_LINEAR: tl.constexpr):  # fmt: skip
    """Give the logits of a tile's keys with some lines of queries, without the content: strip key query."""
    KEYS: tl.constexpr = BLOCK_Y * BLOCK_X
    QUERIES: tl.constexpr = LINES * WIDTH
    i_query = tl.arange(0, QUERIES)[None, :]
    # line-of-keys query
    i_row = tl.arange(0, BLOCK_Y)[:, None] - (i_first + i_query // WIDTH) + KERNEL_Y - 1
    m_row = ((i_row >= 0) & (i_row < KERNEL_Y))[None, :, :]
    # column-of-keys query
    i_column = tl.arange(0, BLOCK_X)[:, None] - i_query % WIDTH + KERNEL_X - 1
    m_column = ((i_column >= 0) & (i_column < KERNEL_X))[None, :, :]
    if HAS_LINEAR:
        i_row = tl.minimum(tl.maximum(i_row, 0), KERNEL_Y - 1)[None, :, :]
        i_row = tl.broadcast_to(i_row, (STRIPS, BLOCK_Y, QUERIES))
        b_rows = tl.where(m_row, tl.gather(b_linear, i_row, axis=1), -INFINITY)
        i_column = KERNEL_Y + tl.minimum(tl.maximum(i_column, 0), KERNEL_X - 1)[None, :, :]
        i_column = tl.broadcast_to(i_column, (STRIPS, BLOCK_X, QUERIES))
        b_columns = tl.where(m_column, tl.gather(b_linear, i_column, axis=1), -INFINITY)
    else:
        b_rows = tl.broadcast_to(tl.where(m_row, 0.0, -INFINITY), (STRIPS, BLOCK_Y, QUERIES))
        b_columns = tl.broadcast_to(tl.where(m_column, 0.0, -INFINITY), (STRIPS, BLOCK_X, QUERIES))
    # strip key query
    return tl.reshape(b_rows[:, :, None, :] + b_columns[:, None, :, :], (STRIPS, KEYS, QUERIES))


@triton.jit(do_not_specialize=SIZES + STRIDES + GRAD_STRIDES + TO_STRIDES[4:])
def key_kernel(p_query, p_key, p_value, p_rows, p_columns, p_padding, p_grad, p_logsumexp, p_delta,
               p_to_key, p_to_value,
               query_b, query_y, query_x, query_h, query_d, key_b, key_y, key_x, key_h, key_d,
               value_b, value_y, value_x, value_h, value_d, grad_b, grad_y, grad_x, grad_h, grad_d,
               to_key_b, to_key_y, to_key_x, to_key_h, to_value_b, to_value_y, to_value_x, to_value_h,
               rows_h, columns_h, height, width, n_heads, n_heads_each, n_groups, n_tiles_y, n_tiles_x,
               dilation_y, dilation_x, factor, scale,
               STRIPS: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, LINES: tl.constexpr,
               WIDTH: tl.constexpr, DIM: tl.constexpr, DIM_: tl.constexpr, VALUE_DIM: tl.constexpr,
               VALUE_DIM_: tl.constexpr, KERNEL_Y: tl.constexpr, KERNEL_X: tl.constexpr,
               ENTRIES: tl.constexpr, HAS_KEY: tl.constexpr, HAS_ROWS: tl.constexpr,
               HAS_COLUMNS: tl.constexpr, HAS_PADDING: tl.constexpr, ALIGN: tl.constexpr,
               OFFSETS: tl.constexpr, SIGN: tl.constexpr, PRECISION: tl.constexpr,
               UPCAST: tl.constexpr):  # fmt: skip
    """Compute the gradients of one tile of keys and values, from the queries that see them.

    The border needs no care: keys outside of the image have no gradient, and queries there no weight.
    """
    HAS_LINEAR: tl.constexpr = HAS_ROWS or HAS_COLUMNS
    KEYS: tl.constexpr = BLOCK_Y * BLOCK_X
    QUERIES: tl.constexpr = LINES * WIDTH
    i_batch, i_group, i_tile_y, i_tile_x, phase_y, phase_x = find_tile(
        n_groups, n_tiles_y, n_tiles_x, dilation_y, dilation_x
    )
    i_top = i_tile_y * (STRIPS * BLOCK_Y)
    i_left = i_tile_x * BLOCK_X
    i_strip = tl.arange(0, STRIPS)[:, None]
    i_key = tl.arange(0, KEYS)[None, :]
    i_query = tl.arange(0, QUERIES)[None, :]
    i_dim = tl.arange(0, DIM_)
    i_value_dim = tl.arange(0, VALUE_DIM_)
    m_dim = i_dim < DIM
    m_value_dim = i_value_dim < VALUE_DIM
    # strip key
    i_y = ((i_top + i_strip * BLOCK_Y + i_key // BLOCK_X) * dilation_y + phase_y).to(OFFSETS)
    i_x = ((i_left + i_key % BLOCK_X) * dilation_x + phase_x).to(OFFSETS)
    m_inside = (i_y < height) & (i_x < width)
    m_key = m_inside
    if HAS_PADDING:
        p_padding += i_batch * height * width
        m_key = m_inside & (tl.load(p_padding + i_y * width + i_x, mask=m_inside, other=1) == 0)
    for i_head in range(i_group * n_heads_each, min((i_group + 1) * n_heads_each, n_heads)):
        i_head_ = tl.cast(i_head, tl.int64)
        p_query_head = p_query + (i_batch * query_b + i_head_ * query_h) * ALIGN
        p_value_head = p_value + (i_batch * value_b + i_head_ * value_h) * ALIGN
        p_grad_head = p_grad + (i_batch * grad_b + i_head_ * grad_h) * ALIGN
        o_head = (i_batch * n_heads + i_head_) * height * width
        # strip key dim
        if HAS_KEY:
            p_key_head = p_key + (i_batch * key_b + i_head_ * key_h) * ALIGN
            o_key = (i_y * key_y + i_x * key_x)[:, :, None] * ALIGN + i_dim * key_d
            b_key = tl.load(p_key_head + o_key, mask=m_key[:, :, None] & m_dim, other=0.0)
            b_to_key = tl.zeros((STRIPS, KEYS, DIM_), tl.float32)
        o_value = (i_y * value_y + i_x * value_x)[:, :, None] * ALIGN + i_value_dim * value_d
        b_value = tl.load(p_value_head + o_value, mask=m_key[:, :, None] & m_value_dim, other=0.0)
        b_to_value = tl.zeros((STRIPS, KEYS, VALUE_DIM_), tl.float32)
        if HAS_LINEAR:
            b_table = load_tables(p_rows, p_columns, i_head, rows_h, columns_h, DIM, DIM_, KERNEL_Y, KERNEL_X,
                                  ENTRIES, HAS_ROWS, HAS_COLUMNS)  # fmt: skip
            # strip entry dim
            b_table = tl.broadcast_to(tl.permute(b_table, (1, 0))[None, :, :], (STRIPS, ENTRIES, DIM_))
        for i_first in range(0, KERNEL_Y + BLOCK_Y - 1, LINES):
            # strip query
            i_line = i_first + i_query // WIDTH
            i_query_y = (i_top + i_strip * BLOCK_Y + i_line - KERNEL_Y // 2) * dilation_y + phase_y
            i_query_x = (i_left + i_query % WIDTH - KERNEL_X // 2) * dilation_x + phase_x
            i_query_y, i_query_x = i_query_y.to(OFFSETS), i_query_x.to(OFFSETS)
            m_query = (i_query_y >= 0) & (i_query_y < height) & (i_line < KERNEL_Y + BLOCK_Y - 1)
            m_query = m_query & (i_query_x >= 0) & (i_query_x < width)
            m_query = m_query & (i_query % WIDTH < BLOCK_X + KERNEL_X - 1)
            o_pixel = i_query_y * width + i_query_x
            if HAS_PADDING:
                m_query = m_query & (tl.load(p_padding + o_pixel, mask=m_query, other=1) == 0)
            b_logsumexp = tl.load(p_logsumexp + o_head + o_pixel, mask=m_query, other=INFINITY)
            b_delta = tl.load(p_delta + o_head + o_pixel, mask=m_query, other=0.0)
            # strip query dim
            o_query = (i_query_y * query_y + i_query_x * query_x)[:, :, None] * ALIGN + i_dim * query_d
            b_query = tl.load(p_query_head + o_query, mask=m_query[:, :, None] & m_dim, other=0.0)
            if SIGN != 1:
                b_query = (b_query.to(tl.float32) * SIGN).to(b_query.dtype)
            o_grad = (i_query_y * grad_y + i_query_x * grad_x)[:, :, None] * ALIGN + i_value_dim * grad_d
            b_grad = tl.load(p_grad_head + o_grad, mask=m_query[:, :, None] & m_value_dim, other=0.0)
            # strip entry query
            b_linear = None
            if HAS_LINEAR:
                b_linear = multiply(b_table, tl.permute(b_query, (0, 2, 1)), None, PRECISION, UPCAST)
                b_linear = clamp(b_linear, LARGE)
            # strip key query
            b_logits = shift_queries(b_linear, i_first, STRIPS, BLOCK_Y, BLOCK_X, LINES, WIDTH, KERNEL_Y,
                                     KERNEL_X, HAS_LINEAR)  # fmt: skip
            if HAS_KEY:
                b_logits = multiply(b_key, tl.permute(b_query, (0, 2, 1)), b_logits, PRECISION, UPCAST)
            b_weights = weigh(b_logits, b_logsumexp[:, None, :], factor)
            # strip key dim
            b_to_value = multiply(b_weights.to(b_grad.dtype), b_grad, b_to_value, PRECISION, UPCAST)
            if HAS_KEY:
                # strip key query
                b_to_weights = multiply(b_value, tl.permute(b_grad, (0, 2, 1)), None, PRECISION, UPCAST)
                b_to_logits = b_weights * (b_to_weights - b_delta[:, None, :])
                b_to_key = multiply(b_to_logits.to(b_query.dtype), b_query, b_to_key, PRECISION, UPCAST)
        # strip key dim
        p_to_value_head = p_to_value + (i_batch * to_value_b + i_head_ * to_value_h) * ALIGN
        o_to_value = (i_y * to_value_y + i_x * to_value_x)[:, :, None] * ALIGN + i_value_dim
        b_to_value = tl.where(m_key[:, :, None], b_to_value, 0.0).to(p_to_value.dtype.element_ty)
        tl.store(p_to_value_head + o_to_value, b_to_value, mask=m_inside[:, :, None] & m_value_dim)
        if HAS_KEY:
            p_to_key_head = p_to_key + (i_batch * to_key_b + i_head_ * to_key_h) * ALIGN
            o_to_key = (i_y * to_key_y + i_x * to_key_x)[:, :, None] * ALIGN + i_dim
            b_to_key = tl.where(m_key[:, :, None], b_to_key * (scale * SIGN), 0.0)
            b_to_key = b_to_key.to(p_to_key.dtype.element_ty)
            tl.store(p_to_key_head + o_to_key, b_to_key, mask=m_inside[:, :, None] & m_dim)
