// Mean, biased variance and one over the standard deviation of each channel of [images, channels, inner]: one workgroup a
// channel, each of its 256 invocations every 256th element of it, then a tree. The variance is summed in a second pass
// around the mean, so that a large mean does not cancel it.
// Parameters: images, channels, inner, bits of epsilon.
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> variance: array<f32>;
@group(0) @binding(4) var<storage, read_write> inverse: array<f32>;
var<workgroup> lanes: array<f32, 256>;

fn element(channel: u32, i: u32) -> f32 {
    return source[(i / p[2] * p[1] + channel) * p[2] + i % p[2]];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let channel = group.x;
    let count = p[0] * p[2];
    let shift = element(channel, 0u);
    var sum = 0.0;
    for (var i = local; i < count; i += 256u) {
        sum += element(channel, i) - shift;
    }
    lanes[local] = sum;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (local < half) {
            lanes[local] += lanes[local + half];
        }
    }
    workgroupBarrier();
    let m = shift + lanes[0] / f32(count);
    workgroupBarrier();
    sum = 0.0;
    for (var i = local; i < count; i += 256u) {
        let d = element(channel, i) - m;
        sum += d * d;
    }
    lanes[local] = sum;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (local < half) {
            lanes[local] += lanes[local + half];
        }
    }
    if (local == 0u) {
        let v = lanes[0] / f32(count);
        mean[channel] = m;
        variance[channel] = v;
        inverse[channel] = 1.0 / sqrt(v + bitcast<f32>(p[3]));
    }
}
