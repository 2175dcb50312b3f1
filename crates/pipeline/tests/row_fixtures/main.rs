//! Kinds of graphs and inputs that users bring, each as small as it can be, through a whole run: start, quantize, prune, deploy in
//! ONNX Runtime, with an open batch and with one of 1. The deployed file stays near the float graph, nearer than any wrong
//! handling that is known would leave it, and the weights that can be integers are.
mod cases;
mod foreign;
mod inputs;
mod layers;
mod net;
mod numbers;
mod values;
mod whole;
