// Softmax of rows, or its logarithm: one workgroup a row, each of its 256 invocations every 256th element; the largest
// element first, then the sum of exponentials, each by a tree in workgroup memory.
// Parameters: rows, elements of a row, 1 for the logarithm, bits of minus infinity.
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> target_: array<f32>;
var<workgroup> lanes: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = group.y * groups.x + group.x;
    let inside = row < p[0];
    let start = select(0u, row, inside) * p[1];
    var top = bitcast<f32>(p[3]);
    for (var k = local; k < p[1]; k += 256u) {
        top = larger(top, source[start + k]);
    }
    lanes[local] = top;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (local < half) {
            lanes[local] = larger(lanes[local], lanes[local + half]);
        }
    }
    workgroupBarrier();
    top = lanes[0];
    workgroupBarrier();
    var sum = 0.0;
    for (var k = local; k < p[1]; k += 256u) {
        sum += exp(source[start + k] - top);
    }
    lanes[local] = sum;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (local < half) {
            lanes[local] += lanes[local + half];
        }
    }
    workgroupBarrier();
    sum = lanes[0];
    if (!inside) { return; }
    let shift = log(sum);
    for (var k = local; k < p[1]; k += 256u) {
        let x = source[start + k] - top;
        target_[start + k] = select(exp(x) / sum, x - shift, p[2] != 0u);
    }
}
