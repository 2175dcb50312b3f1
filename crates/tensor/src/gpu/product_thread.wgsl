// Products with few rows or columns (depthwise convolutions, vectors): one invocation an element of the result, which walks
// along k. See product_tile.wgsl for the problem's functions and the parameters.
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = linear(group, groups, local);
    let rows = p[0];
    let columns = p[1];
    if (i >= rows * columns * p[3]) { return; }
    let column = i % columns;
    let row = i / columns % rows;
    let z = i / columns / rows;
    var sum = first(z, row, column);
    for (var k = 0u; k < p[2]; k += 1u) {
        sum += left(z, row, k) * right(z, k, column);
    }
    target_[place(z, row, column)] = sum;
}
