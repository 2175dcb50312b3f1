// Folds rows of consecutive elements: one workgroup a row, each of its 256 invocations every 256th element, then a tree in
// workgroup memory. JOIN stands for the fold in x and y.
// Parameters: rows, elements of a row, bits of the fold's neutral element.
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> target_: array<f32>;
var<workgroup> lanes: array<f32, 256>;

fn join(x: f32, y: f32) -> f32 {
    return JOIN;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = group.y * groups.x + group.x;
    var x = bitcast<f32>(p[2]);
    if (row < p[0]) {
        for (var k = local; k < p[1]; k += 256u) {
            x = join(x, source[row * p[1] + k]);
        }
    }
    lanes[local] = x;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (local < half) {
            lanes[local] = join(lanes[local], lanes[local + half]);
        }
    }
    if (local == 0u && row < p[0]) {
        target_[row] = lanes[0];
    }
}
