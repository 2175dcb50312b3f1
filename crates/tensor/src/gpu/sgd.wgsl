// One step of SGD with momentum: v' = momentum * v + g + decay * w; w' = w - lr * v', or w - lr * (g + momentum * v') in
// Nesterov's form. One invocation an element.
// Parameters: elements, bits of lr, momentum and decay, 1 for Nesterov.
@group(0) @binding(1) var<storage, read> parameter: array<f32>;
@group(0) @binding(2) var<storage, read> gradient: array<f32>;
@group(0) @binding(3) var<storage, read> velocity: array<f32>;
@group(0) @binding(4) var<storage, read_write> new_parameter: array<f32>;
@group(0) @binding(5) var<storage, read_write> new_velocity: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    let momentum = bitcast<f32>(p[2]);
    let g = gradient[i] + bitcast<f32>(p[3]) * parameter[i];
    let v = momentum * velocity[i] + g;
    new_velocity[i] = v;
    new_parameter[i] = parameter[i] - bitcast<f32>(p[1]) * select(v, g + momentum * v, p[4] != 0u);
}
