"""The specification, as a suite that pytest collects.

Each file is a chapter. Each property is one requirement, and its docstring is the sentence.
"""
