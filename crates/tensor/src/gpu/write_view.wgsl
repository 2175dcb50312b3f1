// Writes a strided view: y[start + ..] = x[i], elements as 32-bit words; what is outside the view stays as it is. One
// invocation an element of the view, in which no element of y comes twice.
// Parameters: elements, start, axes, then size and stride of each axis, outermost first (negative strides wrap).
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read_write> target_: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    var rest = i;
    var to = p[1];
    for (var axis = p[2]; axis > 0u; axis -= 1u) {
        let at = 3u + (axis - 1u) * 2u;
        to += rest % p[at] * p[at + 1u];
        rest /= p[at];
    }
    target_[to] = source[i];
}
