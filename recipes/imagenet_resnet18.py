"""ResNet-18 on ImageNet with learned strides: accuracy by start, and accuracy against cost, the paper's Figure 4.

Data: ImageNet as an image folder, ROOT/train/<class>/<image> and ROOT/val/<class>/<image> (the images of val/ are
    distributed without class folders: sort them into such first); or any images in such folders. Needs torchvision:
    pip install 'audiostride[vision]'.
Command: python recipes/imagenet_resnet18.py ROOT --devices 8
    python recipes/imagenet_resnet18.py ROOT --devices 8 --starts paper --lambdas 0
    python recipes/imagenet_resnet18.py ROOT --devices 8 --pooling diffstride --set size=nominal
    On two machines: torchrun --nnodes 2 --nproc-per-node 8 ... recipes/imagenet_resnet18.py ROOT --devices 8
    --num-nodes 2
Expected: the paper's top-1, mean (sd) over its six starts: strided 65.53 (4.49), spectral 67.58 (1.88), DiffStride
    69.28 (0.50); its Figure 4 shows lambda from 0.1 to 10. Not run on ImageNet: no figures of this toolkit yet. Written
    are a table (table.md) and a figure (figure.png, figure.svg): top-1 against the regulariser's value and against true
    multiply-adds, which at the paper's size of maps (n/S + 2R) are several times those of strided convolution.
Hardware: the paper's schedule (90 epochs of 1.28 M images, batches of 256) for GPUs; a step is shared by all of them.
Time: --smoke 15 s (one thread, drawn pictures); ImageNet not run. A finished run is not trained again, a stopped one
    goes on where it was.
"""

import sys

from lab import main_images

if __name__ == "__main__":
    sys.exit(
        main_images(
            "imagenet_resnet18",
            __doc__,
            preset="paper_imagenet",
            expected="not run on ImageNet. The paper's, over its six starts: strided 65.53 (4.49), spectral 67.58 "
            "(1.88), DiffStride 69.28 (0.50)",
        )
    )
