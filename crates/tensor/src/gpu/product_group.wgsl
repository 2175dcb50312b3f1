// Long products of few elements (the weights of a depthwise convolution): one workgroup an element of the result, each of
// its 256 invocations every 256th k, then a tree in workgroup memory. See product_tile.wgsl for the problem's functions and
// the parameters.
var<workgroup> lanes: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = group.y * groups.x + group.x;
    let rows = p[0];
    let columns = p[1];
    let inside = i < rows * columns * p[3];
    let column = i % columns;
    let row = i / columns % rows;
    let z = i / columns / rows;
    var sum = 0.0;
    if (inside) {
        for (var k = local; k < p[2]; k += 256u) {
            sum += left(z, row, k) * right(z, k, column);
        }
    }
    lanes[local] = sum;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (local < half) {
            lanes[local] += lanes[local + half];
        }
    }
    if (local == 0u && inside) {
        target_[place(z, row, column)] = first(z, row, column) + lanes[0];
    }
}
