"""Gradual transitions in a stream of tiny pictures: dissolves, fades, wipes and pushes, found by what they are.

With A a picture before, B one after and M those between, a dissolve or fade is M = (1 - w) A + w B with a growing w; a
wipe shows B in a growing part of the picture and A in the rest; a push is a window that moves over A and B side by
side. Nearly all pictures of a shot are passed over by arithmetic on scalar products alone (the Gram matrix of the last
2 s); the few that are left are looked at as pictures, where motion and a change of the light are told apart. What no
detector is sure of are doubts: of a forest for a change as a whole (doubts), of a net for single frames (mixed).
"""
