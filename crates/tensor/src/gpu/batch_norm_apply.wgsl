// y = clamp((x - mean) * inverse * scale + bias + residual, lo, hi) of [images, channels, inner]: one invocation an element.
// Parameters: elements, channels, inner, bits of lo and hi, 1 where there is a residual.
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> inverse: array<f32>;
@group(0) @binding(4) var<storage, read> scale: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> residual: array<f32>;
@group(0) @binding(7) var<storage, read_write> target_: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    let c = i / p[2] % p[1];
    var y = (source[i] - mean[c]) * (inverse[c] * scale[c]) + bias[c];
    if (p[5] != 0u) { y += residual[i]; }
    // A NaN stays one.
    y = select(y, bitcast<f32>(p[3]), y < bitcast<f32>(p[3]));
    target_[i] = select(y, bitcast<f32>(p[4]), y > bitcast<f32>(p[4]));
}
