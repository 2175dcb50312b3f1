// One function of each element: y[i] = f(x[i]). One invocation an element.
// EXPRESSION stands for f in x and the numbers a and b; TYPE for the result's type.
// Parameters: elements, a, b.
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> target_: array<TYPE>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    let a = bitcast<f32>(p[1]);
    let b = bitcast<f32>(p[2]);
    let x = source[i];
    target_[i] = EXPRESSION;
}
