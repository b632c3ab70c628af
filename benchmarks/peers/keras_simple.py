"""Keras 3 on TensorFlow, as its own "Simple MNIST convnet" has it; prints the seconds of each epoch.

python keras_simple.py FILE.npz EPOCHS
"""

import os
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
from keras import layers


class Clock(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        print(f"\nepoch_s {time.perf_counter() - self.start:.4f}", flush=True)


with np.load(sys.argv[1]) as arrays:
    x_train = np.expand_dims(arrays["images"].astype("float32") / 255, -1)
    y_train = keras.utils.to_categorical(arrays["labels"], 10)

model = keras.Sequential(
    [
        keras.Input(shape=(28, 28, 1)),
        layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
model.fit(x_train, y_train, batch_size=128, epochs=int(sys.argv[2]), callbacks=[Clock()])
