// x where the condition holds, y elsewhere, all three broadcast. One invocation an element of the result.
// Parameters: elements, axes, then size, stride of the condition, of x and of y of each axis, outermost first.
@group(0) @binding(1) var<storage, read> condition: array<u32>;
@group(0) @binding(2) var<storage, read> left: array<f32>;
@group(0) @binding(3) var<storage, read> right: array<f32>;
@group(0) @binding(4) var<storage, read_write> target_: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    var rest = i;
    var at_c = 0u;
    var at_x = 0u;
    var at_y = 0u;
    for (var axis = p[1]; axis > 0u; axis -= 1u) {
        let at = 2u + (axis - 1u) * 4u;
        let k = rest % p[at];
        rest /= p[at];
        at_c += k * p[at + 1u];
        at_x += k * p[at + 2u];
        at_y += k * p[at + 3u];
    }
    if (condition[at_c] != 0u) {
        target_[i] = left[at_x];
    } else {
        target_[i] = right[at_y];
    }
}
