// One step of Adam with decoupled weight decay. One invocation an element.
// Parameters: elements, bits of lr, beta1, beta2, epsilon, decay, 1 - beta1^step and sqrt(1 - beta2^step).
@group(0) @binding(1) var<storage, read> parameter: array<f32>;
@group(0) @binding(2) var<storage, read> gradient: array<f32>;
@group(0) @binding(3) var<storage, read> first: array<f32>;
@group(0) @binding(4) var<storage, read> second: array<f32>;
@group(0) @binding(5) var<storage, read_write> new_parameter: array<f32>;
@group(0) @binding(6) var<storage, read_write> new_first: array<f32>;
@group(0) @binding(7) var<storage, read_write> new_second: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    let lr = bitcast<f32>(p[1]);
    let beta1 = bitcast<f32>(p[2]);
    let beta2 = bitcast<f32>(p[3]);
    let g = gradient[i];
    let m = beta1 * first[i] + (1.0 - beta1) * g;
    let v = beta2 * second[i] + (1.0 - beta2) * g * g;
    new_first[i] = m;
    new_second[i] = v;
    let w = parameter[i];
    new_parameter[i] = w - (lr * bitcast<f32>(p[5]) * w + lr * (m / bitcast<f32>(p[6])) / (sqrt(v) / bitcast<f32>(p[7]) + bitcast<f32>(p[4])));
}
