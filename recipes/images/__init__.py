"""Image classifiers with learned strides, for the paper's experiments on CIFAR and ImageNet."""
