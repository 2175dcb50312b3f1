// Gradient of a convolution by its weights as an implicit matrix product for product_*.wgsl: for each group z, rows are its
// output channels, columns its input channels times taps, k the output pixels of all images.
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> target_: array<f32>;

fn left(z: u32, row: u32, k: u32) -> f32 {
    return dy[(k / pixels_out() * p[9] + z * p[0] + row) * pixels_out() + k % pixels_out()];
}
fn right(z: u32, k: u32, column: u32) -> f32 {
    let at = seen(k % pixels_out(), column % taps());
    if (at < 0i) { return 0.0; }
    let channel = z * (p[8] / p[10]) + column / taps();
    return x[(k / pixels_out() * p[8] + channel) * pixels_in() + u32(at)];
}
fn first(z: u32, row: u32, column: u32) -> f32 {
    return 0.0;
}
fn place(z: u32, row: u32, column: u32) -> u32 {
    return (z * p[0] + row) * p[1] + column;
}
