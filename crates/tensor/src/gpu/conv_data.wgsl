// Gradient of a convolution by its input as an implicit matrix product for product_*.wgsl: for each group z, rows are its
// input channels, columns the input pixels of all images, k its output channels times taps.
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> target_: array<f32>;

fn left(z: u32, row: u32, k: u32) -> f32 {
    let channel = z * (p[9] / p[10]) + k / taps();
    return w[(channel * p[0] + row) * taps() + k % taps()];
}
fn right(z: u32, k: u32, column: u32) -> f32 {
    let at = seeing(column % pixels_in(), k % taps());
    if (at < 0i) { return 0.0; }
    let channel = z * (p[9] / p[10]) + k / taps();
    return dy[(column / pixels_in() * p[9] + channel) * pixels_out() + u32(at)];
}
fn first(z: u32, row: u32, column: u32) -> f32 {
    return 0.0;
}
fn place(z: u32, row: u32, column: u32) -> u32 {
    return (column / pixels_in() * p[8] + z * p[0] + row) * pixels_in() + column % pixels_in();
}
