# Leaves before it has read anything.
echo 'cannot find the model' >&2
echo 'set MODEL and try again' >&2
exit 9
