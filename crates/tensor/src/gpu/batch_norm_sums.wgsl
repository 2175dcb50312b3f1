// Gradients of a batch normalization by scale and bias: the sums over each channel of dz * (x - mean) * inverse and of dz,
// where dz is dy as far as the activation lets it through. One workgroup a channel, then a tree.
// Parameters: images, channels, inner, bits of lo and hi, 1 where there is an activation.
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read> output: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> mean: array<f32>;
@group(0) @binding(5) var<storage, read> inverse: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_scale: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_bias: array<f32>;
var<workgroup> lanes: array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let c = group.x;
    let count = p[0] * p[2];
    let m = mean[c];
    var sums = vec2<f32>(0.0, 0.0);
    for (var i = local; i < count; i += 256u) {
        let at = (i / p[2] * p[1] + c) * p[2] + i % p[2];
        let y = output[at];
        let passes = p[5] == 0u || (y > bitcast<f32>(p[3]) && y < bitcast<f32>(p[4]));
        let d = select(0.0, dy[at], passes);
        sums += vec2<f32>(d * (source[at] - m), d);
    }
    lanes[local] = sums;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (local < half) {
            lanes[local] += lanes[local + half];
        }
    }
    if (local == 0u) {
        d_scale[c] = lanes[0].x * inverse[c];
        d_bias[c] = lanes[0].y;
    }
}
