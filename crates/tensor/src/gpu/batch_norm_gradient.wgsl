// Gradients of a batch normalization by its input and by the residual, dz (see batch_norm_sums.wgsl): one invocation an
// element. Through the statistics (training): dx = a * (dz - mean(dz) - x_hat * mean(dz * x_hat)), a = scale * inverse; else
// dx = a * dz.
// Parameters: elements, channels, inner, bits of lo and hi, 1 where there is an activation, bits of one over the elements of
// a channel (0 where statistics are given), 1 where the residual wants its gradient.
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read> output: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> mean: array<f32>;
@group(0) @binding(5) var<storage, read> inverse: array<f32>;
@group(0) @binding(6) var<storage, read> scale: array<f32>;
@group(0) @binding(7) var<storage, read> d_scale: array<f32>;
@group(0) @binding(8) var<storage, read> d_bias: array<f32>;
@group(0) @binding(9) var<storage, read_write> dx: array<f32>;
@group(0) @binding(10) var<storage, read_write> dz: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    let c = i / p[2] % p[1];
    let y = output[i];
    let passes = p[5] == 0u || (y > bitcast<f32>(p[3]) && y < bitcast<f32>(p[4]));
    let d = select(0.0, dy[i], passes);
    let share = bitcast<f32>(p[6]);
    let x_hat = (source[i] - mean[c]) * inverse[c];
    dx[i] = scale[c] * inverse[c] * (d - share * (d_bias[c] + x_hat * d_scale[c]));
    if (p[7] != 0u) { dz[i] = d; }
}
