// Values as they read back from a uniform integer grid: one invocation an element. The division is a division, and halves
// round to even, as on the processor.
// Parameters: elements, length of the runs that share a scale, scales, bits of qmin and qmax.
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read> zero_point: array<f32>;
@group(0) @binding(4) var<storage, read_write> target_: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    let c = i / p[1] % p[2];
    let q = round(source[i] / scale[c]) + zero_point[c];
    let lo = bitcast<f32>(p[3]);
    let hi = bitcast<f32>(p[4]);
    let clamped = select(select(q, lo, q < lo), hi, q > hi);
    target_[i] = (clamped - zero_point[c]) * scale[c];
}
