// Batches of matrix products, either operand transposed, batch axes broadcast: a problem for product_*.wgsl.
// Parameters from word 8 on: row and column stride of the left operand, then of the right one, batch axes, then size and
// stride in the left and in the right operand of each batch axis, outermost first.
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> target_: array<f32>;

// Where the matrices of problem z start; side 0 is the left operand.
fn base(z: u32, side: u32) -> u32 {
    var rest = z;
    var at = 0u;
    for (var axis = p[12]; axis > 0u; axis -= 1u) {
        let word = 13u + (axis - 1u) * 3u;
        at += rest % p[word] * p[word + 1u + side];
        rest /= p[word];
    }
    return at;
}
fn left(z: u32, row: u32, k: u32) -> f32 {
    return a[base(z, 0u) + row * p[8] + k * p[9]];
}
fn right(z: u32, k: u32, column: u32) -> f32 {
    return b[base(z, 1u) + k * p[10] + column * p[11]];
}
fn first(z: u32, row: u32, column: u32) -> f32 {
    return 0.0;
}
fn place(z: u32, row: u32, column: u32) -> u32 {
    return (z * p[0] + row) * p[1] + column;
}
