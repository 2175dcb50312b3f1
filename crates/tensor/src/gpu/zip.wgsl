// One function of each pair of elements, broadcast: z[i] = f(x[..], y[..]). One invocation an element of the result.
// EXPRESSION stands for f in x, y and the numbers a and b; TYPE for the result's type.
// Parameters: elements, a, b, axes, then size, stride of x and stride of y of each axis, outermost first.
@group(0) @binding(1) var<storage, read> left: array<f32>;
@group(0) @binding(2) var<storage, read> right: array<f32>;
@group(0) @binding(3) var<storage, read_write> target_: array<TYPE>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    let a = bitcast<f32>(p[1]);
    let b = bitcast<f32>(p[2]);
    var rest = i;
    var at_x = 0u;
    var at_y = 0u;
    for (var axis = p[3]; axis > 0u; axis -= 1u) {
        let at = 4u + (axis - 1u) * 3u;
        let k = rest % p[at];
        rest /= p[at];
        at_x += k * p[at + 1u];
        at_y += k * p[at + 2u];
    }
    let x = left[at_x];
    let y = right[at_y];
    target_[i] = EXPRESSION;
}
