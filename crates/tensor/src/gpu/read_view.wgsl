// Reads a strided view: y[i] = x[start + ..], elements as 32-bit words. One invocation an element of the view.
// Parameters: elements, start, axes, then size and stride of each axis, outermost first (negative strides wrap).
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read_write> target_: array<u32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    var rest = i;
    var from_ = p[1];
    for (var axis = p[2]; axis > 0u; axis -= 1u) {
        let at = 3u + (axis - 1u) * 2u;
        from_ += rest % p[at] * p[at + 1u];
        rest /= p[at];
    }
    target_[i] = source[from_];
}
