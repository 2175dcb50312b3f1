// Folds the middle axis of [outer, count, inner]: one invocation an element of the result, which walks its part of the
// middle axis; neighbouring invocations read neighbouring elements. With several parts the result is [outer, parts, inner]
// and is folded again. JOIN stands for the fold in x and y, START for its neutral element.
// Parameters: elements of the result, count, inner, parts, length of a part, bits of START.
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> target_: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    if (i >= p[0]) { return; }
    let count = p[1];
    let inner = p[2];
    let column = i % inner;
    let part = i / inner % p[3];
    let outer = i / inner / p[3];
    let from_ = part * p[4];
    let to = min(count, from_ + p[4]);
    var x = bitcast<f32>(p[5]);
    for (var k = from_; k < to; k += 1u) {
        let y = source[(outer * count + k) * inner + column];
        x = JOIN;
    }
    target_[i] = x;
}
