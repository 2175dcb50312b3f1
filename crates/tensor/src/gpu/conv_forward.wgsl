// Convolution as an implicit matrix product for product_*.wgsl: for each group z, rows are its output channels, columns the
// output pixels of all images, k its input channels times taps. Word 29 is 1 where there is a bias.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> target_: array<f32>;

fn left(z: u32, row: u32, k: u32) -> f32 {
    return w[(z * p[0] + row) * p[2] + k];
}
fn right(z: u32, k: u32, column: u32) -> f32 {
    let at = seen(column % pixels_out(), k % taps());
    if (at < 0i) { return 0.0; }
    let channel = z * (p[8] / p[10]) + k / taps();
    return x[(column / pixels_out() * p[8] + channel) * pixels_in() + u32(at)];
}
fn first(z: u32, row: u32, column: u32) -> f32 {
    if (p[29] == 0u) { return 0.0; }
    return bias[z * p[0] + row];
}
fn place(z: u32, row: u32, column: u32) -> u32 {
    return (column / pixels_out() * p[9] + z * p[0] + row) * pixels_out() + column % pixels_out();
}
